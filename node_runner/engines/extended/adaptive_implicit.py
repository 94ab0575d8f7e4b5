"""An implicit Runge-Kutta method that chooses its steps, in torchdiffeq's adaptive loop."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from node_runner.engines.extended.implicit import as_real, as_state
from node_runner.engines.extended.newton import NotConverged, StageSolver
from node_runner.types import Tableau


SHRINK = 0.5
"""Of a step whose equations Newton's method does not solve."""


def make_solver(name: str, coefficients: Tableau, common: ModuleType) -> type:
    """A solver class for torchdiffeq's table.

    Source: Hairer and Wanner, Solving ODEs II, 2nd ed., section IV.8: the error estimate is damped by
    (I - h gamma J)^-1, and once more where a step was rejected, so that stiff parts do not spoil it; the dense output
    is the collocation polynomial. Steps are controlled as torchdiffeq controls those of its explicit methods, and
    are constants in the gradient.

    Args:
        name: of the method.
        coefficients: of a collocation method whose last node is the end of the step, with an error estimate of order s.
        common: torchdiffeq's module rk_common: the loop over output times, and that over events, are its own.
    """
    stages = coefficients.stages
    gamma = -sum(coefficients.error)

    def row(numbers: tuple[float, ...]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.float64)

    dense = _collocation(row(coefficients.c))

    class Solver(common.RKAdaptiveStepsizeODESolver):  # type: ignore[misc, name-defined]
        order = stages + 1  # of the error estimate's first term, which the control of the step goes by
        tableau = common._ButcherTableau(
            alpha=row(coefficients.c),
            beta=[row(weights) for weights in coefficients.a],
            c_sol=row(coefficients.b),
            c_error=row(coefficients.error),
        )
        mid = dense @ row(tuple(0.5**power for power in range(1, stages + 1)))

        def __init__(self, *arguments: Any, max_iters: int = 10, samples: Tensor | None = None, **more: Any) -> None:
            super().__init__(*arguments, **more)
            self.stages = StageSolver(coefficients, samples, max_iters)
            self.doubtful = True  # no step has been accepted yet, or the last one was not

        def _adaptive_step(self, rk_state: Any) -> Any:
            y0, f0, _, t0, dt, interp_coeff = rk_state
            dt = dt.detach()
            dt = (dt if torch.isfinite(dt) else self.min_step).clamp(self.min_step, self.max_step)
            self.func.callback_step(t0, y0, dt)
            t1 = t0 + dt
            assert t1 > t0, f"underflow in dt {dt.item()}"
            assert torch.isfinite(y0).all(), f"non-finite values in state `y`: {y0}"
            h = dt.to(y0.abs().dtype)
            nodes = [(t1 if c == 1 else t0 + c * dt).to(h) for c in coefficients.c]

            def slope(i: int, y: Tensor) -> Tensor:
                side = common.Perturb.PREV if coefficients.c[i] == 1 else common.Perturb.NONE
                return as_real(self.func(nodes[i], as_state(y, y0), perturb=side))

            try:
                k = self.stages.solve(slope, as_real(y0).detach(), as_real(f0).detach(), float(h))
            except NotConverged:
                ratio, dt_next = torch.inf, SHRINK * dt
            else:
                ratio = self._ratio(t0.to(h), y0.detach(), f0.detach(), h, k)
                dt_next = common._optimal_step_size(
                    dt, torch.as_tensor(ratio), self.safety, self.ifactor, self.dfactor, self.order
                )
            dt_next = dt_next.clamp(self.min_step, self.max_step)
            converged = ratio < torch.inf
            self.doubtful = not (ratio <= 1 or (converged and bool(dt <= self.min_step)))
            if self.doubtful:
                assert dt > self.min_step or not self.min_step, f"no solution with min_step {dt.item()}"
                self.func.callback_reject_step(t0, y0, dt)
                return common._RungeKuttaState(y0, f0, t0, t0, dt_next, interp_coeff)
            self.func.callback_accept_step(t0, y0, dt)
            k = self.stages.differentiated(slope, as_real(y0), as_real(f0), h, k)
            powers = [as_state(h * _weighted(weights, k), y0) for weights in dense.T]
            y1 = y0 + as_state(h * _weighted(row(coefficients.b), k), y0)
            return common._RungeKuttaState(y1, as_state(k[-1], y0), t0, t1, dt_next, [y0, *powers])

        @torch.no_grad()
        def _ratio(self, t0: Tensor, y0: Tensor, f0: Tensor, h: Tensor, k: Tensor) -> float:
            """The error of a step relative to the tolerance; infinite where it is no number."""
            y1 = y0 + as_state(h * _weighted(row(coefficients.b), k), y0)
            rest = _weighted(row(coefficients.error), k)

            def ratio_of(slope: Tensor) -> tuple[Tensor, float]:
                error = self.stages.damped(h * (gamma * as_real(slope) + rest), gamma, float(h))
                error = as_state(error, y0)
                ratio = float(common._compute_error_ratio(error, self.rtol, self.atol, y0, y1, self.norm))
                return error, ratio if ratio == ratio else torch.inf

            error, ratio = ratio_of(f0)
            if self.doubtful and 1 <= ratio < torch.inf:
                _, ratio = ratio_of(self.func(t0, y0 + error))
            return ratio

    Solver.__name__ = Solver.__qualname__ = name
    return Solver


def _weighted(weights: Tensor, k: Tensor) -> Tensor:
    """The sum over the stages of weights (s,) times slopes k (s, *shape)."""
    return torch.einsum("i,i...->...", weights.to(k), k)


def _collocation(c: Tensor) -> Tensor:
    """(s, s) weights of the slopes at nodes c (s,), for each power x, ..., x^s of the share x of a step that is done.

    The polynomial through them has the slopes k_i at the nodes.
    """
    powers = torch.arange(len(c), dtype=c.dtype)
    lagrange = torch.linalg.inv(c[:, None] ** powers)  # (power, node)
    return lagrange.T / (powers + 1)
