"""A step of an implicit Runge-Kutta method, as torchdiffeq's loop over a grid asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from node_runner.engines.extended.newton import NotConverged, StageSolver
from node_runner.engines.failures import NOT_FINITE
from node_runner.errors import SolveFailed
from node_runner.types import Tableau


class NewtonSteps:
    """What the steps of implicit methods share, for classes that extend one of torchdiffeq's solvers too.

    Attributes:
        method: of Runge-Kutta type.
        misc: torchdiffeq's module of that name.
        max_iters: Newton iterations in a step, unless an option says otherwise.
        func: torchdiffeq's: the field.
    """

    method: Tableau
    misc: ModuleType
    max_iters: int
    func: Any

    def __init__(
        self, *arguments: Any, max_iters: int | None = None, samples: Tensor | None = None, **more: Any
    ) -> None:
        super().__init__(*arguments, **more)
        self.stages = StageSolver(self.method, samples, self.max_iters if max_iters is None else max_iters)
        self.sign = -1.0 if isinstance(self.func.base_func, self.misc._ReverseFunc) else 1.0

    def failed(self, t0: Tensor, dt: Tensor, failure: NotConverged) -> SolveFailed:
        """The error of a solve whose stage equations could not be solved."""
        where = f"{type(self).__name__} stopped at t={self.sign * float(t0.detach()):.6g}"
        if not failure.correction < float("inf"):
            return SolveFailed(f"{where}: {NOT_FINITE}")
        return SolveFailed(
            f"{where}: Newton's method did not converge in {failure.iterations} iterations (step {float(dt):.1e}, last "
            f"correction {failure.correction:.1e} of the state); try a smaller solver.step_size or solver.min_step, a "
            "larger solver.max_iters, or a smaller optimizer.lr"
        )


class ImplicitSteps(NewtonSteps):
    """Steps on a grid, for a class that extends torchdiffeq's FixedGridODESolver too. perturb: torchdiffeq's option."""

    perturb: bool

    def _step_func(self, func: Any, t0: Tensor, dt: Tensor, t1: Tensor, y0: Tensor) -> tuple[Tensor, Tensor]:
        """The change of the state in one step, and the slope at its start, as torchdiffeq's loop asks for them."""
        side = self.misc.Perturb
        h = torch.as_tensor(dt, device=y0.device).to(y0.abs().dtype)  # a plain number where events are looked for
        start, end = (side.NEXT, side.PREV) if self.perturb else (side.NONE, side.NONE)
        nodes = [(t0, start) if c == 0 else (t1, end) if c == 1 else (t0 + c * dt, side.NONE) for c in self.method.c]
        f0 = func(t0, y0, perturb=start)

        def slope(i: int, y: Tensor) -> Tensor:
            t, perturb = nodes[i]
            return as_real(func(t, as_state(y, y0), perturb=perturb))

        try:
            k = self.stages.stages(slope, as_real(y0), as_real(f0), h)
        except NotConverged as failure:
            raise self.failed(t0, dt, failure) from failure
        return weighted(h, self.method.b, k, y0), f0


def make_solver(name: str, method: Tableau, on_grid: ModuleType, misc: ModuleType) -> type:
    """A solver class for torchdiffeq's table: grids, interpolation, callbacks and events are torchdiffeq's own.

    Args:
        name: of the method.
        method: an implicit Runge-Kutta method.
        on_grid, misc: torchdiffeq's modules solvers and misc.
    """
    return type(name, (ImplicitSteps, on_grid.FixedGridODESolver), {"method": method, "misc": misc, "max_iters": 20})


def weighted(h: Tensor, weights: Sequence[float], slopes: Tensor, like: Tensor) -> Tensor:
    """H times the weighted sum of slopes (s, ...), as a change of a state `like` this one."""
    row = torch.tensor(weights, dtype=slopes.dtype, device=slopes.device)
    return as_state(h * torch.einsum("i,i...->...", row, slopes), like)


def as_real(y: Tensor) -> Tensor:
    """A complex state as pairs of numbers (*shape, 2); a real one as it is."""
    return torch.view_as_real(y) if y.is_complex() else y


def as_state(y: Tensor, like: Tensor) -> Tensor:
    """Back from `as_real`."""
    return torch.view_as_complex(y.contiguous()) if like.is_complex() else y
