"""The neural controlled differential equation."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from node_runner.learning import ModelOutput, Regulariser
from node_runner.models import MODELS
from node_runner.models.parts.block import MakeField, ODEBlock
from node_runner.models.parts.control import Control, channels, knots, through
from node_runner.models.parts.declarations import learns_from
from node_runner.models.parts.own_times import own_times
from node_runner.models.parts.standardised import Standardised
from node_runner.settings import ControlPath, Width
from node_runner.types import Integrate
from node_runner.views import DataSpec, View


class Response(nn.Module):
    """tanh(W f(t, z) + b), (B, H) -> (B, H, C): how the state answers to each channel of a control.

    Args:
        make_field: makes f, (B, H) -> (B, H).
        hidden: H.
        channels: C.
    """

    def __init__(self, make_field: MakeField, hidden: int, channels: int) -> None:
        super().__init__()
        self.field = make_field((hidden,))
        self.time_dependent = getattr(self.field, "time_dependent", True)
        self.out = nn.Linear(hidden, hidden * channels)
        self.shape = (hidden, channels)

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        """t: (), z: (B, H) -> (B, H, C)."""
        return torch.tanh(self.out(self.field(t, z))).unflatten(1, self.shape)


class Driven(nn.Module):
    """dz/dt = F(t, z) dX/dt.

    Args:
        response: F.
        control: X.
        begin: () time from which the first channel of X counts, where F is told the time of each series (None: it is
            told that of the solve).
    """

    time_dependent = True

    def __init__(self, response: nn.Module, control: Control, begin: Tensor | None = None) -> None:
        super().__init__()
        self.response = response
        self.control = control
        self.begin = begin

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        """t: (), z: (B, H) -> (B, H)."""
        told = t if self.begin is None else self.begin + self.control.value(t)[:, 0]
        return torch.bmm(self.response(told, z), self.control.slope(t).unsqueeze(2)).squeeze(2)


@MODELS.register("cde", "neural controlled differential equation: classifies the path that drives it")
@learns_from(View.paths)
class NeuralCDE(Standardised):
    """z(t0) = g(X(t0)), dz = F(z) dX, logits from z at the end; X has time, values and observation counts.

    Each series' path has its knots at its own times, whatever those of its neighbours. Where these differ, the solve's
    time is the same for the k-th knot of all, and regularisers are integrated along that.

    Source: Kidger, Morrill, Foster, Lyons, Neural Controlled Differential Equations for Irregular Time Series (2020).

    Args:
        spec: of the labelled series.
        make_field: makes the field inside F.
        solve: the differentiable solve, one for a batch.
        regularisers: integrated along the solve while training.
        hidden: numbers in the hidden state z.
        path: how X is drawn through the observations.
    """

    view = View.paths

    def __init__(
        self,
        spec: DataSpec,
        make_field: MakeField,
        solve: Integrate,
        regularisers: Mapping[str, Regulariser],
        /,
        *,
        hidden: Width = 32,
        path: ControlPath = ControlPath.hermite,
    ) -> None:
        super().__init__(spec.mean, spec.std)
        controls = 1 + 2 * spec.shape[0]
        self.path, self.times = path, spec.times
        self.block = ODEBlock(lambda shape: Response(make_field, shape[0], controls), solve, regularisers, (hidden,))
        self.begin = nn.Linear(controls, hidden)
        self.head = nn.Linear(hidden, spec.num_classes)

    def control(self, ts: Tensor, values: Tensor, seen: Tensor) -> Control:
        """The path X of series ts (T,) or (T, B), values (T, B, D), seen (T, B, D)."""
        most = self.times or len(ts)
        return through(knots(ts), channels(ts, self.standardise(values), seen, most), self.path)

    @own_times
    def forward(self, ts: Tensor, values: Tensor, seen: Tensor) -> ModelOutput:
        """ts: (T,) or (T, B), values: (T, B, D), seen: (T, B, D) -> logits (B, C)."""
        logits, output = self._logits(ts, values, seen)
        return output._replace(value=logits[-1])

    @torch.no_grad()
    def verdicts(self, ts: Tensor, values: Tensor, seen: Tensor) -> Tensor:
        """Logits (T, B, C) from the state at every time of the path: how the verdict forms."""
        logits, _ = self._logits(ts, values, seen)
        return logits

    def _logits(self, ts: Tensor, values: Tensor, seen: Tensor) -> tuple[Tensor, ModelOutput]:
        control = self.control(ts, values, seen)
        own = ts.dim() == 2 and getattr(self.block.field, "time_dependent", True)
        begin = ts[0, 0] if own else None
        # Asked for at every knot: a solver with fixed steps makes them end where the pieces of the path do.
        flow = self.block(
            self.begin(control.x[0]), control.ts, around=lambda response: Driven(response, control, begin)
        )
        logits = self.head(flow.ys)
        return logits, ModelOutput(logits, [flow.stats], flow.penalties)
