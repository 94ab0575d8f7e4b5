"""A solve, bound: engine, method and adjoint made into one `Integrate`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from node_runner.engines import ENGINES
from node_runner.errors import ConfigError
from node_runner.settings import Batching, ToleranceConfig
from node_runner.types import (
    Adjoint,
    Dynamics,
    Engine,
    Gradient,
    HeldBack,
    Integrate,
    Method,
    Norm,
    Solution,
    SolveStats,
    offers,
)


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


class Solve:
    """The differentiable solve of a run: an `Integrate` made of engine, method and adjoint.

    Where the engine stands for several, each solve is served by the first that can.

    Args:
        engine: who runs the solve.
        method: what is run.
        adjoint: how the gradient is computed.
        tolerances: asked for the tolerance in force at each solve.

    Raises:
        ConfigError: no engine can run the method, or the adjoint cannot differentiate it.
    """

    def __init__(self, engine: Engine, method: Method, adjoint: Adjoint, tolerances: Tolerances) -> None:
        reason = adjoint.unsupported(method)
        if reason:
            raise ConfigError(reason)
        self.engine, self.method, self.adjoint, self.tolerances = engine, method, adjoint, tolerances
        self.served_by: str | None = None
        self._rehearsing: list[Choice] | None = None
        self._watching: list[Solved] | None = None
        self._instead: Solve | None = None
        self.expect(0)

    def __deepcopy__(self, memo: dict[int, object]) -> Solve:
        """Itself: a copy of a model, such as its moving average, solves at the tolerances of the run."""
        return self

    def expect(self, steps: int) -> None:
        """Choose among the engines for a training of so many steps: one that must compile pays only in the long run.

        Raises:
            ConfigError: no engine can run the method.
        """
        engines = self.engine.candidates(steps)
        stochastic = self.method.calculus is not None
        fitting = [engine for engine in engines if getattr(engine, "stochastic", False) is stochastic]
        self._candidates = [
            (engine, timed(self._differentiable(engine)), engine.unsupported(self.method))
            for engine in fitting or engines
        ]
        unfit = {engine.name: reason for engine, _, reason in self._candidates if reason is not None}
        if len(unfit) == len(self._candidates):
            raise ConfigError(nobody(unfit, elsewhere(lambda other: other.unsupported(self.method) is None)))

    def __call__(self, f: Dynamics, y0: Tensor, ts: Tensor, *, norm: Norm | None = None) -> Solution:
        """Solve; see `node_runner.types.Integrate`.

        Raises:
            ConfigError: no engine can serve this solve, with the reason.
        """
        if self._instead is not None:
            return self._instead(f, y0, ts, norm=norm)
        if offers(f, "check"):
            f.check(self.method, self.adjoint.name)  # type: ignore[attr-defined]
        if offers(f, "diffusion") and self.method.calculus is None:
            raise ConfigError(
                f"solver={self.method.name} is for ordinary differential equations, and this model's is stochastic: "
                "use solver=euler_maruyama, milstein, srk or reversible_heun"
            )
        refused: dict[str, str] = {}
        for engine, solve, unfit in self._candidates:
            reason = unfit or engine.refuses(self.method, f, y0, norm, self.adjoint.name)
            if reason is None:
                if self._rehearsing is not None:
                    adjoint = self.adjoint.name if torch.is_grad_enabled() else None
                    work = engine.prepare(self.method, f, y0, norm, adjoint)
                    self._rehearsing.append(Choice(engine.name, refused, work))
                    return Solution(ts, y0.expand(len(ts), *y0.shape), SolveStats())
                if self.served_by is None or torch.is_grad_enabled():  # evaluations may have another
                    self.served_by = engine.name
                solution = solve(f, y0, ts, norm=norm)
                if self._watching is not None:
                    self._watching.append(Solved(f, solution._replace(ys=solution.ys.detach())))
                return solution
            refused[engine.name] = reason

        def serves(other: Engine) -> bool:
            method = self.method
            return other.unsupported(method) is None and not other.refuses(method, f, y0, norm, self.adjoint.name)

        raise ConfigError(nobody(refused, elsewhere(serves)))

    @contextmanager
    def instead(self, other: Solve) -> Iterator[None]:
        """Within this block `other` solves for whoever holds this one."""
        self._instead = other
        try:
            yield
        finally:
            self._instead = None

    @contextmanager
    def watched(self) -> Iterator[list[Solved]]:
        """Within this block every solve is kept, with its field."""
        self._watching = []
        try:
            yield self._watching
        finally:
            self._watching = None

    @contextmanager
    def rehearsal(self) -> Iterator[list[Choice]]:
        """Within this block a solve only says which engine would serve it: its states stay at y0."""
        self._rehearsing = []
        try:
            yield self._rehearsing
        finally:
            self._rehearsing = None

    def _differentiable(self, engine: Engine) -> Integrate:
        """One engine's solves: with the gradient from the engine itself, or from the adjoint around it."""
        own = self.adjoint.name in engine.adjoints
        # The gradient of the parameters, which all samples share, is part of what is solved backward.
        joint = replace(self.method, batching=Batching.shared)

        def forward(f: Dynamics, y0: Tensor, ts: Tensor, *, norm: Norm | None = None) -> Solution:
            rtol, atol = self.tolerances.forward()
            gradient = Gradient(self.adjoint.name if own else "off", *self.tolerances.adjoint())
            return engine.integrate(self.method, f, y0, ts, rtol=rtol, atol=atol, norm=norm, gradient=gradient)

        def backward(f: Dynamics, y0: Tensor, ts: Tensor, *, norm: Norm | None = None) -> Solution:
            rtol, atol = self.tolerances.adjoint()
            return engine.integrate(joint, f, y0, ts, rtol=rtol, atol=atol, norm=norm)

        return forward if own else self.adjoint.wrap(forward, backward)


def elsewhere(serves: Callable[[Engine], bool]) -> str | None:
    """The engine that would serve where the chosen one does not, auto before any other; None where there is none."""
    return next((name for name in ("auto", *ENGINES.names()) if serves(ENGINES.get(name)())), None)


def nobody(refused: Mapping[str, str], other: str | None) -> str:
    """Why no engine can serve, from the reason of each; and which one would."""
    if len(refused) > 1:
        held = next((name for name, reason in refused.items() if isinstance(reason, HeldBack)), None)
        advice = f"; use engine={held}, which compiles whatever it costs" if held else ""
        return f"engine=auto has none that can serve: {'; '.join(refused.values())}{advice}"
    (reason,) = refused.values()
    if other is None:
        return reason
    joint = ", or" if ": use " in reason else "; use"
    return f"{reason}{joint} engine={other}, which serves this"


class Solved(NamedTuple):
    """A field and its solution, whose states have no gradient."""

    f: Dynamics
    solution: Solution


class Choice(NamedTuple):
    """The engine that serves a solve, why those before it cannot, and what it makes before its first solve."""

    engine: str
    refused: dict[str, str]
    work: Callable[[], object] | None


def timed(solve: Integrate) -> Integrate:
    """Also measure the host's time in the gradient of a solve, unless the engine does.

    From the moment the loss's gradient reaches the solution until it has been carried through to
    the initial state. Where the initial state needs no gradient the clock is stopped by
    `stop_backward`, which the training loop calls when backward has returned.
    """

    def integrate(f: Dynamics, y0: Tensor, ts: Tensor, *, norm: Norm | None = None) -> Solution:
        solution = solve(f, y0, ts, norm=norm)
        stats = solution.stats
        if solution.ys.requires_grad and torch.is_grad_enabled() and not stats.self_timed:

            def start(gradient: Tensor) -> None:
                stats.backward_began = time.perf_counter()

            solution.ys.register_hook(start)
            if y0.requires_grad:
                y0.register_hook(lambda gradient: stats.stop_backward())
        return solution

    return integrate
