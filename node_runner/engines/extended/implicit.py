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


def make_solver(name: str, tableau: Tableau, base: Any, misc: ModuleType) -> type:
    """A solver class for torchdiffeq's table.

    Args:
        name: of the method.
        tableau: of the method.
        base: torchdiffeq's FixedGridODESolver: grids, interpolation, callbacks and events are its own.
        misc: torchdiffeq's module of that name.
    """
    perturb = misc.Perturb

    class Solver(base):  # type: ignore[misc]
        def __init__(self, *arguments: Any, max_iters: int = 20, samples: Tensor | None = None, **more: Any) -> None:
            super().__init__(*arguments, **more)
            self.stages = StageSolver(tableau, samples, max_iters)
            self.sign = -1.0 if isinstance(self.func.base_func, misc._ReverseFunc) else 1.0

        def _step_func(self, func: Any, t0: Tensor, dt: Tensor, t1: Tensor, y0: Tensor) -> tuple[Tensor, Tensor]:
            real = y0.abs().dtype
            h = torch.as_tensor(dt, device=y0.device).to(real)  # a plain number where events are looked for
            nudged = (perturb.NEXT, perturb.PREV) if self.perturb else (perturb.NONE, perturb.NONE)
            nodes = [
                (t0, nudged[0]) if c == 0 else (t1, nudged[1]) if c == 1 else (t0 + c * dt, perturb.NONE)
                for c in tableau.c
            ]
            f0 = func(t0, y0, perturb=nudged[0])

            def slope(i: int, y: Tensor) -> Tensor:
                t, side = nodes[i]
                return as_real(func(t, as_state(y, y0), perturb=side))

            try:
                k = self.stages.stages(slope, as_real(y0), as_real(f0), h)
            except NotConverged as failure:
                raise SolveFailed(sentence(name, self.sign * float(t0.detach()), float(dt), failure)) from failure
            return weighted(h, tableau.b, k, y0), f0

    Solver.__name__ = Solver.__qualname__ = name
    return Solver


def sentence(name: str, t: float, step: float, failure: NotConverged) -> str:
    """A solve whose equations could not be solved."""
    where = f"{name} stopped at t={t:.6g}"
    if not failure.correction < float("inf"):
        return f"{where}: {NOT_FINITE}"
    return (
        f"{where}: Newton's method did not converge in {failure.iterations} iterations (step {step:.1e}, last "
        f"correction {failure.correction:.1e} of the state); try a smaller solver.step_size or solver.min_step, a "
        "larger solver.max_iters, or a smaller optimizer.lr"
    )


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
