"""engine=auto: the fastest engine that can serve each solve."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from node_runner.engines import ENGINES
from node_runner.errors import ConfigError
from node_runner.settings import CountOrZero
from node_runner.types import DISCRETE, Dynamics, Engine, Gradient, HeldBack, Method, Norm, Solution


ORDER = ("native", "lanes", "torchsde", "torchdiffeq")
"""Engines that need not compile each field anew, the fastest first. torchsde alone is for stochastic equations."""

log = logging.getLogger("node_runner")


@ENGINES.register("auto", "the fastest engine that can serve each solve, and the run says which that is")
class Auto(Engine):
    """Native where it can; compiled in the steps of a training that is long enough; torchdiffeq for the rest.

    With solver.batching=per_sample native where it can, and lanes for the rest. Stochastic equations are torchsde's.

    It runs no solve of its own.

    Args:
        compile_from: training steps from which engine=compiled is taken. Its compilation takes 2 to 25 seconds; on
            the problems of experiments/benchmarks/engines it has been earned back after 1,000 steps at the latest.
    """

    name = "auto"
    adjoints: frozenset[str] = frozenset()

    def __init__(self, *, compile_from: CountOrZero = 1000) -> None:
        self.compile_from = compile_from
        self._compiled = ENGINES.get("compiled")()
        self._engines: list[Engine] = [ENGINES.get(name)() for name in ORDER]

    def candidates(self, steps: int) -> Sequence[Engine]:
        """Every engine, the fastest first."""
        fastest, *others = self._engines
        return (fastest, InTraining(self._compiled, steps, self.compile_from), *others)

    def unsupported(self, method: Method) -> str | None:
        """Where no engine supports the method, the reason of the last one, which supports the most."""
        reasons = [engine.unsupported(method) for engine in self._engines]
        return None if None in reasons else reasons[-1]

    def refuses(self, method: Method, f: Dynamics, y0: Tensor, norm: Norm | None, adjoint: str) -> str | None:
        """Where no engine can serve, the reason of the last of those that support the method."""
        reasons = [
            engine.refuses(method, f, y0, norm, adjoint)
            for engine in self._engines
            if engine.unsupported(method) is None
        ]
        return None if None in reasons else reasons[-1]

    def prepare(
        self, method: Method, f: Dynamics, y0: Tensor, norm: Norm | None, adjoint: str | None
    ) -> Callable[[], object] | None:
        """The work of the engine that will serve."""
        engine = self._serving(method, f, y0, norm, adjoint or "off")
        return None if engine is None else engine.prepare(method, f, y0, norm, adjoint)

    def integrate(
        self, method: Method, f: Dynamics, y0: Tensor, ts: Tensor, *, rtol: float, atol: float, norm: Norm | None,
        gradient: Gradient = DISCRETE,
    ) -> Solution:  # fmt: skip
        """Solve with the first engine that can."""
        engine = self._serving(method, f, y0, norm, gradient.adjoint)
        assert engine is not None and gradient.adjoint in engine.adjoints, "refuses() says what is served"
        return engine.integrate(method, f, y0, ts, rtol=rtol, atol=atol, norm=norm, gradient=gradient)

    def _serving(self, method: Method, f: Dynamics, y0: Tensor, norm: Norm | None, adjoint: str) -> Engine | None:
        """The first engine that can serve such a solve outside of a training."""
        for engine in self._engines:
            if engine.unsupported(method) is None and engine.refuses(method, f, y0, norm, adjoint) is None:
                return engine
        return None


class InTraining(Engine):
    """An engine that must compile, for the solves that are repeated often enough to earn it back.

    Those are the training steps of a long run, but not a smaller last batch of an epoch, nor an evaluation: each
    would need code of its own.

    Args:
        engine: that compiles.
        steps: of the training that is ahead.
        least: steps from which compiling pays.
    """

    def __init__(self, engine: Engine, steps: int, least: int) -> None:
        self.name, self.adjoints = engine.name, engine.adjoints
        self._engine, self._steps, self._least = engine, steps, least
        self._kinds: set[tuple[torch.Size, torch.dtype]] = set()
        self._begun = False
        self._failed: str | None = None

    def unsupported(self, method: Method) -> str | None:
        """As the engine says."""
        return self._engine.unsupported(method)

    def refuses(self, method: Method, f: Dynamics, y0: Tensor, norm: Norm | None, adjoint: str) -> str | None:
        """Solves that are not repeated often enough, and those that the engine itself refuses."""
        if self._steps < self._least:
            return HeldBack(
                f"engine={self.name} is taken from {self._least} training steps on (engine.compile_from), "
                f"and this run has {self._steps}"
            )
        if not torch.is_grad_enabled():
            return HeldBack(f"engine={self.name} would compile for an evaluation alone")
        if self._begun and (y0.shape, y0.dtype) not in self._kinds:
            return HeldBack(f"engine={self.name} would compile for a batch of {len(y0)} alone")
        return self._failed or self._engine.refuses(method, f, y0, norm, adjoint)

    def prepare(
        self, method: Method, f: Dynamics, y0: Tensor, norm: Norm | None, adjoint: str | None
    ) -> Callable[[], object] | None:
        """The engine's work. Where it fails, the reason is logged and the next engine serves."""
        self._kinds.add((y0.shape, y0.dtype))
        work = self._engine.prepare(method, f, y0, norm, adjoint)
        return None if work is None else Attempt(work, self._give_up)

    def _give_up(self, reason: str) -> None:
        self._failed = reason
        log.warning("%s; this run does", reason)

    def integrate(
        self, method: Method, f: Dynamics, y0: Tensor, ts: Tensor, *, rtol: float, atol: float, norm: Norm | None,
        gradient: Gradient = DISCRETE,
    ) -> Solution:  # fmt: skip
        """As the engine does."""
        self._begun = True
        self._kinds.add((y0.shape, y0.dtype))
        return self._engine.integrate(method, f, y0, ts, rtol=rtol, atol=atol, norm=norm, gradient=gradient)


@dataclass(frozen=True)
class Attempt:
    """Work of an engine that may turn out to be impossible; two are equal if their work is."""

    work: Callable[[], object]
    give_up: Callable[[str], None] = field(compare=False)

    def __call__(self) -> None:
        """Do it, or say why it cannot be done."""
        try:
            self.work()
        except ConfigError as reason:
            self.give_up(str(reason))
