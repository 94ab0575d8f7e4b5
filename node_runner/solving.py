"""A solve, bound: engine, method and adjoint made into one `Integrate`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from node_runner.errors import ConfigError
from node_runner.settings import ToleranceConfig
from node_runner.types import Adjoint, Dynamics, Engine, Integrate, Method, Norm, Solution


class Tolerances:
    """The tolerances in force: of training, which may follow a schedule, or of evaluation.

    Args:
        config: as configured.
    """

    def __init__(self, config: ToleranceConfig) -> None:
        self.config = config
        self.progress = 1.0
        self._evaluating = False
        if (config.start_rtol is None) != (config.start_atol is None):
            raise ConfigError("tolerance: a schedule needs both start_rtol and start_atol")

    def forward(self) -> tuple[float, float]:
        """(rtol, atol) of a forward solve."""
        config = self.config
        if self._evaluating:
            return config.eval_rtol or config.rtol, config.eval_atol or config.atol
        if config.start_rtol is None or config.start_atol is None:
            return config.rtol, config.atol
        share = min(1.0, self.progress / config.schedule_share) if config.schedule_share else 1.0
        return (
            config.start_rtol * (config.rtol / config.start_rtol) ** share,
            config.start_atol * (config.atol / config.start_atol) ** share,
        )

    def adjoint(self) -> tuple[float, float]:
        """(rtol, atol) of a backward solve."""
        rtol, atol = self.forward()
        return self.config.adjoint_rtol or rtol, self.config.adjoint_atol or atol

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """Within this block solves use the evaluation tolerance."""
        before, self._evaluating = self._evaluating, True
        try:
            yield
        finally:
            self._evaluating = before


def make_solve(engine: Engine, method: Method, adjoint: Adjoint, tolerances: Tolerances) -> Integrate:
    """The differentiable solve of a run.

    Raises:
        ConfigError: the engine cannot run the method, or the adjoint cannot differentiate it.
    """
    for part in (engine, adjoint):
        reason = part.unsupported(method)
        if reason:
            raise ConfigError(reason)

    def forward(f: Dynamics, y0: Tensor, ts: Tensor, *, norm: Norm | None = None) -> Solution:
        rtol, atol = tolerances.forward()
        return engine.integrate(method, f, y0, ts, rtol=rtol, atol=atol, norm=norm)

    def backward(f: Dynamics, y0: Tensor, ts: Tensor, *, norm: Norm | None = None) -> Solution:
        rtol, atol = tolerances.adjoint()
        return engine.integrate(method, f, y0, ts, rtol=rtol, atol=atol, norm=norm)

    return timed(adjoint.wrap(forward, backward))


def timed(solve: Integrate) -> Integrate:
    """Also measure the host's time in the gradient of a solve.

    From the moment the loss's gradient reaches the solution until it has been carried through to
    the initial state. Where the initial state needs no gradient the clock is stopped by
    `stop_backward`, which the training loop calls when backward has returned.
    """

    def integrate(f: Dynamics, y0: Tensor, ts: Tensor, *, norm: Norm | None = None) -> Solution:
        solution = solve(f, y0, ts, norm=norm)
        if solution.ys.requires_grad and torch.is_grad_enabled():
            stats = solution.stats

            def start(gradient: Tensor) -> None:
                stats.backward_began = time.perf_counter()

            solution.ys.register_hook(start)
            if y0.requires_grad:
                y0.register_hook(lambda gradient: stats.stop_backward())
        return solution

    return integrate
