"""A leapfrog step, as torchdiffeq's loop over a grid asks for it."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor


class LeapfrogSteps:
    """Kick, drift, kick, with f_q the first half of the field and f_p the second:

    p' = p + h/2 f_p(q, p), q1 = q + h f_q(q + h/2 f_q, p'), p1 = p + h/2 (f_p(q, p) + f_p(q1, p + h f_p)).

    Where f_q depends on p alone and f_p on q alone this is the symplectic leapfrog. The other arguments, which
    do not count there, make it a method of order 2 for every field, whatever the halves.

    For a class that extends torchdiffeq's FixedGridODESolver too. misc: torchdiffeq's module; perturb: its option.

    Source: Hairer, Lubich, Wanner, Geometric Numerical Integration, 2nd ed., section I.1.4 (Störmer-Verlet).
    """

    order = 2
    misc: ModuleType
    perturb: bool

    def _step_func(self, func: Any, t0: Tensor, dt: Tensor, t1: Tensor, y0: Tensor) -> tuple[Tensor, Tensor]:
        """The change of the state in one step, and the slope at its start, as torchdiffeq's loop asks for them."""
        side = self.misc.Perturb
        half = 0.5 * dt
        f0 = func(t0, y0, perturb=side.NEXT if self.perturb else side.NONE)
        drift, _ = halves(func(t0 + half, y0 + half * f0))
        _, kick = halves(f0)
        q, p = halves(y0)
        arrived = torch.cat((q + dt * drift, p + dt * kick), dim=axis(y0))
        _, again = halves(func(t1, arrived, perturb=side.PREV if self.perturb else side.NONE))
        return torch.cat((dt * drift, half * (kick + again)), dim=axis(y0)), f0


def make_solver(on_grid: ModuleType, misc: ModuleType) -> type:
    """A solver class for torchdiffeq's table: grids, interpolation, callbacks and events are torchdiffeq's own.

    Args:
        on_grid, misc: torchdiffeq's modules solvers and misc.
    """
    return type("leapfrog", (LeapfrogSteps, on_grid.FixedGridODESolver), {"misc": misc})


def axis(y: Tensor) -> int:
    """Along which a state (B, D...) has its halves; a state without samples (D,) has but one axis."""
    return min(1, y.ndim - 1)


def halves(y: Tensor) -> tuple[Tensor, Tensor]:
    """[q, p] -> q, p; of an odd number the larger half is p."""
    size = y.shape[axis(y)] // 2
    q, p = y.split((size, y.shape[axis(y)] - size), dim=axis(y))
    return q, p
