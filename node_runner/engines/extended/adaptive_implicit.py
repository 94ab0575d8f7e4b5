"""An implicit Runge-Kutta method that chooses its steps, in torchdiffeq's adaptive loop."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from node_runner.engines.extended.explicit import butcher, row
from node_runner.engines.extended.implicit import NewtonSteps, as_real, as_state, weighted
from node_runner.engines.extended.newton import NotConverged, Stage
from node_runner.types import Norm, Tableau


SHRINK = 0.5
"""Of a step whose equations Newton's method does not solve."""


class CollocationSteps(NewtonSteps):
    """Steps of a collocation method, for a class that extends torchdiffeq's RKAdaptiveStepsizeODESolver too.

    Steps are controlled as torchdiffeq controls those of its explicit methods, and are constants in the gradient.
    The dense output is the collocation polynomial (Hairer and Wanner, Solving ODEs II, 2nd ed., section IV.8).

    The error estimate of radau5 is gamma h times the slope at the start of the step less the slope of the collocation
    polynomial there. RADAU5 evaluates the field for the former, whose stiff part it must then damp by
    (I - h gamma J)^-1; but the damping also hides the error of the dense output where fast modes are driven from
    outside. Here that slope is the last stage of the step before, which Newton's method has made as smooth as the
    solution: nothing need be damped, and values between two steps are as accurate as those at their ends.

    Attributes:
        method: a collocation method whose last node is the end of the step, with an error estimate.
        dense: weights of its dense output, see `collocation`.
        common: torchdiffeq's module rk_common.
        rtol, ..., norm: torchdiffeq's.
    """

    dense: Tensor
    common: ModuleType
    rtol: Tensor
    atol: Tensor
    min_step: Tensor
    max_step: Tensor
    safety: Tensor
    ifactor: Tensor
    dfactor: Tensor
    order: int
    norm: Norm

    def _adaptive_step(self, rk_state: Any) -> Any:
        """One attempt, as torchdiffeq's loop asks for it: the state after it, or where it is rejected before it."""
        y0, f0, _, t0, dt, interp_coeff = rk_state
        dt, t1 = self._next(t0, dt.detach(), y0)
        h = dt.to(y0.abs())
        slope = self._slopes(t0, dt, t1, y0)
        try:
            k = self.stages.solve(slope, as_real(y0).detach(), as_real(f0).detach(), float(h))
            ratio = self._ratio(y0.detach(), f0.detach(), h, k)
            dt_next = self.misc._optimal_step_size(dt, ratio, self.safety, self.ifactor, self.dfactor, self.order)
        except NotConverged as failure:
            if dt <= self.min_step:
                raise self.failed(t0, dt, failure) from failure
            ratio, dt_next = torch.full_like(dt, torch.inf), SHRINK * dt
        dt_next = dt_next.clamp(self.min_step, self.max_step)
        if not (ratio <= 1 or dt <= self.min_step):
            self.func.callback_reject_step(t0, y0, dt)
            return self.common._RungeKuttaState(y0, f0, t0, t0, dt_next, interp_coeff)
        self.func.callback_accept_step(t0, y0, dt)
        k = self.stages.differentiated(slope, as_real(y0), as_real(f0), h, k)
        powers = [weighted(h, weights, k, y0) for weights in self.dense.T.tolist()]
        y1 = y0 + weighted(h, self.method.b, k, y0)
        return self.common._RungeKuttaState(y1, as_state(k[-1], y0), t0, t1, dt_next, [y0, *powers])

    def _next(self, t0: Tensor, dt: Tensor, y0: Tensor) -> tuple[Tensor, Tensor]:
        """The size of the step that is tried, and its end."""
        dt = (dt if torch.isfinite(dt) else self.min_step).clamp(self.min_step, self.max_step)
        self.func.callback_step(t0, y0, dt)
        t1 = t0 + dt
        assert t1 > t0, f"underflow in dt {dt.item()}"
        assert torch.isfinite(y0).all(), f"non-finite values in state `y`: {y0}"
        return dt, t1

    def _slopes(self, t0: Tensor, dt: Tensor, t1: Tensor, y0: Tensor) -> Stage:
        """The field at the node of each stage, in real numbers."""
        h = dt.to(y0.abs())
        nodes = [(t1 if c == 1 else t0 + c * dt).to(h) for c in self.method.c]

        def slope(i: int, y: Tensor) -> Tensor:
            side = self.misc.Perturb.PREV if self.method.c[i] == 1 else self.misc.Perturb.NONE
            return as_real(self.func(nodes[i], as_state(y, y0), perturb=side))

        return slope

    @torch.no_grad()
    def _ratio(self, y0: Tensor, f0: Tensor, h: Tensor, k: Tensor) -> Tensor:
        """The error of a step relative to the tolerance (); the slope at its start has a part in it."""
        y1 = y0 + weighted(h, self.method.b, k, y0)
        error = weighted(h, self.method.error, k, y0) - sum(self.method.error) * (h * f0)
        ratio: Tensor = self.misc._compute_error_ratio(error, self.rtol, self.atol, y0, y1, self.norm)
        return ratio


def make_solver(name: str, method: Tableau, common: ModuleType, misc: ModuleType) -> type:
    """A solver class for torchdiffeq's table; the arguments are those of `CollocationSteps`.

    The loop over output times, and that over events, are torchdiffeq's own.
    """
    dense = collocation(row(method.c))
    own = {
        "order": method.stages + 1,  # of the error of a step as it is estimated, which the control goes by
        "tableau": butcher(common, method.c, method.a, method),
        "mid": dense @ 0.5 ** torch.arange(1.0, method.stages + 1, dtype=torch.float64),
        "max_iters": 10,
        "method": method,
        "dense": dense,
        "common": common,
        "misc": misc,
    }
    return type(name, (CollocationSteps, common.RKAdaptiveStepsizeODESolver), own)


def collocation(c: Tensor) -> Tensor:
    """(s, s) weights of the slopes at nodes c (s,), for each power x, ..., x^s of the share x of a step that is done.

    The polynomial that they make has these slopes at the nodes.
    """
    powers = torch.arange(len(c), dtype=c.dtype)
    lagrange = torch.linalg.inv(c[:, None] ** powers)  # (power, node)
    return lagrange.T / (powers + 1)
