"""A neural ODE of second order: positions change by their velocity, and a network is the acceleration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from node_runner.errors import ConfigError
from node_runner.forms import FieldForm, Moved, form_of
from node_runner.learning import Regulariser
from node_runner.models import MODELS
from node_runner.models.parts.block import MakeField, ODEBlock
from node_runner.models.parts.declarations import learns_from
from node_runner.models.parts.trajectory import TrajectoryModel
from node_runner.settings import Velocity, Width
from node_runner.types import Integrate
from node_runner.views import DataSpec, View


@MODELS.register("second_order", "second-order neural ODE: dx/dt = v, dv/dt = f(x, v), velocities given or learned")
@learns_from(View.trajectories)
def second_order(
    spec: DataSpec,
    make_field: MakeField,
    solve: Integrate,
    regularisers: Mapping[str, Regulariser],
    /,
    *,
    velocity: Velocity = Velocity.given,
    width: Width = 64,
) -> nn.Module:
    """dx/dt = v, dv/dt = f(t, x, v) on trajectories.

    Source: Norcliffe, Bodnar, Day, Simidjievski, Lio, On Second Order Behaviour in Augmented Neural ODEs (2020),
    where the initial velocity is a network's, v(0) = g(x(0)).

    Args:
        spec: of the data.
        make_field: makes the network for a state (2n,), whose n outputs are the acceleration.
        solve: the differentiable solve.
        regularisers: integrated along the solve.
        velocity: given, data are states [x, v], positions first; or learned, data are positions x.
        width: of the one hidden layer of g.

    Raises:
        ConfigError: velocities are to be given, and the state has no halves.
    """
    dim = spec.shape[0]
    if velocity is Velocity.learned:
        start = nn.Sequential(nn.Linear(dim, width), nn.SiLU(), nn.Linear(width, dim))
        return TrajectoryModel(spec, Started(moved(make_field), solve, regularisers, start, dim))
    if dim % 2:
        raise ConfigError(
            f"model=second_order needs states [x, v] of even size, and dataset={spec.dataset} has {dim} axes: "
            "use model.velocity=learned, if they are positions, or model=node"
        )
    # The data's v is the slope of x in the data's units; the field is of standardised ones.
    (x_std, v_std), v_mean = spec.std.chunk(2), spec.mean.chunk(2)[1]
    field = moved(make_field, v_std / x_std, v_mean / x_std)
    return TrajectoryModel(spec, ODEBlock(field, solve, regularisers, spec.shape))


def moved(
    make_field: MakeField, scale: Tensor | None = None, shift: Tensor | None = None
) -> Callable[[tuple[int, ...]], nn.Module]:
    """Makes the field of a state [x, v] whose acceleration is a network of `make_field`; the rest as for `Motion`."""
    return lambda shape: Motion(make_field(shape, shape[0] // 2), scale, shift)


class Motion(nn.Module):
    """d/dt [x, v] = [scale v + shift, a(t, [x, v])] for a state (B, 2n).

    Args:
        network: a, (t, [x, v]) -> (B, n).
        scale, shift: (n,) from the state's v to the slope of x, where they have units of their own.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, scale: Tensor | None = None, shift: Tensor | None = None) -> None:
        super().__init__()
        self.network = network
        self.time_dependent = getattr(network, "time_dependent", True)
        self.register_buffer("scale", torch.ones(1) if scale is None else scale.clone())
        self.register_buffer("shift", torch.zeros(1) if shift is None else shift.clone())

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """t: () or (B,), y: (B, 2n) -> (B, 2n)."""
        _, v = y.chunk(2, dim=1)
        return torch.cat((self.scale * v + self.shift, self.network(t, y)), dim=1)

    def form(self) -> FieldForm | None:
        """What it is made of, for engines that write it out."""
        inner = form_of(self.network)
        if inner is None:
            return None
        dim = inner.layers[-1].weight.shape[0]
        return replace(inner, moved=Moved(self.scale.expand(dim), self.shift.expand(dim)))


class Started(ODEBlock):
    """An ODE block whose state is widened by a network's velocities rather than by zeros.

    Args:
        make_field, solve, regularisers: as for `ODEBlock`.
        start: positions (B, n) -> velocities (B, n).
        dim: n.
    """

    def __init__(
        self,
        make_field: Callable[[tuple[int, ...]], nn.Module],
        solve: Integrate,
        regularisers: Mapping[str, Regulariser],
        start: nn.Module,
        dim: int,
    ) -> None:
        super().__init__(make_field, solve, regularisers, (dim,), augment=dim)
        self.start = start

    def widen(self, y: Tensor) -> Tensor:
        """(B, n) -> (B, 2n)."""
        return torch.cat((y, self.start(y)), dim=1)
