"""The ODE block: a field, a solve, and what is integrated along the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from node_runner.learning import Regulariser
from node_runner.models.parts.dynamics import Shifted, penalised_solve
from node_runner.types import Dynamics, Integrate, SolveStats


class MakeField(Protocol):
    """Makes a network f(t, y) for a state of the given shape, with as many outputs as the state has or as are told."""

    def __call__(self, shape: tuple[int, ...], outputs: int | None = None, /) -> nn.Module: ...


class Flow(NamedTuple):
    """States (T, B, D...) along a solve, the mean integral () of each regulariser, and the cost."""

    ys: Tensor
    penalties: dict[str, Tensor]
    stats: SolveStats


class ODEBlock(nn.Module):
    """Integrates a field over states that may be widened with zeros.

    Args:
        make_field: makes the field, given the shape of the (widened) state.
        solve: the differentiable solve.
        regularisers: integrated along the solve while training.
        shape: (D...) of one state as the caller sees it.
        augment: zeros appended along the first axis of the state: features or channels
            (Dupont, Doucet, Teh, Augmented Neural ODEs, 2019).
    """

    def __init__(
        self,
        make_field: Callable[[tuple[int, ...]], nn.Module],
        solve: Integrate,
        regularisers: Mapping[str, Regulariser],
        shape: tuple[int, ...],
        augment: int = 0,
    ) -> None:
        super().__init__()
        self.state_shape = (shape[0] + augment, *shape[1:])
        self.field = make_field(self.state_shape)
        self.solve = solve
        self.regularisers = dict(regularisers)
        self.augment = augment

    def widen(self, y: Tensor) -> Tensor:
        """(B, D...) -> (B, D + augment...)."""
        if not self.augment:
            return y
        return torch.cat((y, y.new_zeros(len(y), self.augment, *y.shape[2:])), dim=1)

    def forward(
        self,
        y0: Tensor,
        ts: Tensor,
        t0: Tensor | None = None,
        around: Callable[[nn.Module], nn.Module] | None = None,
        pace: Callable[[nn.Module], nn.Module] | None = None,
    ) -> Flow:
        """Solve from y0 at ts.

        Args:
            y0: (B, D...) initial states, not widened.
            ts: (T,) times, from the start of each sample.
            t0: (B,) time at which each sample starts, for fields that depend on time.
            around: what is put around the field for this solve, such as a control.
            pace: what is put around that and all that is integrated, such as `UnitTime`.

        Returns:
            States with their augmented dimensions, (T, B, D + augment...).
        """
        y0 = self.widen(y0)
        field = self.field
        if t0 is not None and getattr(field, "time_dependent", True):
            field = Shifted(field, t0)
        if around is not None:
            field = around(field)
        if not (self.regularisers and self.training):
            solution = self.solve(field if pace is None else pace(field), y0, ts)
            return Flow(solution.ys, {}, solution.stats)
        solved = penalised_solve(self.solve, field, self.state_shape, y0, ts, self.regularisers, pace=pace)
        return Flow(solved.ys, solved.penalties, solved.stats)

    def vector_field(self, t: Tensor, y: Tensor) -> Tensor:
        """f(t, y) in the caller's dimensions, augmented ones at zero: (B, D...) -> (B, D...)."""
        dynamics: Dynamics = self.field
        return dynamics(t, self.widen(y))[:, : y.shape[1]]
