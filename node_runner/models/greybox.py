"""A known equation whose parameters are learned, with or without a network for what it misses."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from node_runner.errors import ConfigError
from node_runner.learning import ModelOutput, Regulariser
from node_runner.models import MODELS
from node_runner.models.parts.block import MakeField, ODEBlock
from node_runner.models.parts.declarations import learns_from
from node_runner.models.parts.positive import PositiveParameters
from node_runner.models.parts.standardised import Standardised
from node_runner.models.parts.trajectory import TrajectoryModel
from node_runner.settings import Positive
from node_runner.types import Integrate
from node_runner.views import DataSpec, Equation, View


@MODELS.register("greybox", "the data set's own equation with learned parameters, and a network for what it misses")
@learns_from(View.trajectories)
def greybox(
    spec: DataSpec,
    make_field: MakeField,
    solve: Integrate,
    regularisers: Mapping[str, Regulariser],
    /,
    *,
    network: bool = False,
    pace: Positive = 10.0,
    start: dict[str, float] = {},  # noqa: B006  (it is only read)
) -> nn.Module:
    """dy/dt = f(t, y; parameters), plus a network if asked for, on trajectories of a system whose equation is known.

    The learned values are logged as model/NAME and measured with the validation and the tests.

    Source: Rackauckas et al., Universal Differential Equations for Scientific Machine Learning (2020), for the
    equation with a network beside it.

    Args:
        spec: of the data, with its equation.
        make_field: makes the network.
        solve: the differentiable solve.
        regularisers: integrated along the solve.
        network: add the configured field to the equation, zero at first.
        pace: how many times as fast as a network's weights the logarithms of the parameters move: an optimiser such
            as Adam moves every number by about optimizer.lr a step, and they have further to go.
        start: values from which parameters start, by name (those of the data set for the others).

    Raises:
        ConfigError: the data set has no equation, or no such parameter, or the start is not positive.
    """
    if spec.equation is None:
        raise ConfigError(
            f"model=greybox needs an equation, and dataset={spec.dataset} gives none: use model=node, or a data set "
            "with an equation such as dataset=oscillator"
        )
    starts = {**spec.equation.parameters, **start}
    for name, value in starts.items():
        if name not in spec.equation.parameters:
            known = ", ".join(spec.equation.parameters)
            raise ConfigError(f"model.start: dataset={spec.dataset} has no parameter {name!r}: use {known}")
        if not value > 0:
            raise ConfigError(f"model.start.{name}: expected a number above 0, got {value}")
    known_field = Known(Equation(spec.equation.form, starts), spec.mean, spec.std, pace)

    def field(shape: tuple[int, ...]) -> nn.Module:
        return Completed(known_field, make_field(shape)) if network else known_field

    return GreyBox(spec, ODEBlock(field, solve, regularisers, spec.shape), known_field)


class Known(Standardised):
    """A known equation as a field of standardised states, with positive parameters to be learned.

    Args:
        equation: of the data, in their units.
        mean, std: (D,) of the data.
        pace: a parameter is exp(pace * weight): how fast it moves.
    """

    time_dependent = True

    def __init__(self, equation: Equation, mean: Tensor, std: Tensor, pace: float) -> None:
        super().__init__(mean, std)
        self.equation = equation
        start = {name: torch.tensor(value) for name, value in equation.parameters.items()}
        self.weights = PositiveParameters(start, pace)

    def parameter_values(self) -> dict[str, Tensor]:
        """Each parameter () by name."""
        return self.weights.positive()

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """t: () or (B,), y: (B, D) -> (B, D)."""
        slope: Tensor = self.equation.form(t, self.restore(y), **self.parameter_values())
        return slope / self.std


class Completed(nn.Module):
    """A known equation and a network for what it misses: f(t, y) + gain * g(t, y), the gain 0 at first.

    Args:
        known: f.
        network: g.
    """

    time_dependent = True

    def __init__(self, known: Known, network: nn.Module) -> None:
        super().__init__()
        self.known, self.network = known, network
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """t: () or (B,), y: (B, D) -> (B, D)."""
        total: Tensor = self.known(t, y) + self.gain * self.network(t, y)
        return total


class GreyBox(TrajectoryModel):
    """A model of trajectories that also tells the values of its parameters.

    Args:
        spec, block: as for `TrajectoryModel`.
        known: the equation in the block's field.
    """

    def __init__(self, spec: DataSpec, block: ODEBlock, known: Known) -> None:
        super().__init__(spec, block)
        # Part of the block's field already.
        self._known = (known,)

    def forward(self, y0: Tensor, ts: Tensor, t0: Tensor | None = None) -> ModelOutput:
        """y0: (B, D), ts: (T,) from the start, t0: (B,) or None -> states (T, B, D), and the parameters."""
        return super().forward(y0, ts, t0)._replace(scalars=self._known[0].parameter_values())
