"""engine=auto: the fastest engine that can serve each solve."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from node_runner.engines import ENGINES
from node_runner.types import DISCRETE, Dynamics, Engine, Gradient, Method, Norm, Solution


ORDER = ("native", "lanes", "torchdiffeq")
"""Fastest first."""


@ENGINES.register("auto", "the fastest engine that can serve each solve, and the run says which that is")
class Auto:
    """Stands for the others; it runs no solve of its own."""

    name = "auto"
    adjoints: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self._engines: list[Engine] = [ENGINES.get(name)() for name in ORDER]

    def candidates(self) -> list[Engine]:
        """Every engine, the fastest first."""
        return self._engines

    def unsupported(self, method: Method) -> str | None:
        """What the last engine says, which can do the most, where none can."""
        reasons = [engine.unsupported(method) for engine in self._engines]
        return None if None in reasons else reasons[-1]

    def refuses(self, method: Method, f: Dynamics, y0: Tensor, norm: Norm | None, adjoint: str) -> str | None:
        """What the last of those that have the method says, where none can serve."""
        reasons = [
            engine.refuses(method, f, y0, norm, adjoint)
            for engine in self._engines
            if engine.unsupported(method) is None
        ]
        return None if None in reasons else reasons[-1]

    def prepare(
        self, method: Method, f: Dynamics, y0: Tensor, norm: Norm | None, adjoint: str | None
    ) -> Callable[[], object] | None:
        """What the engine that serves makes."""
        engine = self._serving(method, f, y0, norm, adjoint or "off")
        return None if engine is None else engine.prepare(method, f, y0, norm, adjoint)

    def integrate(
        self,
        method: Method,
        f: Dynamics,
        y0: Tensor,
        ts: Tensor,
        *,
        rtol: float,
        atol: float,
        norm: Norm | None,
        gradient: Gradient = DISCRETE,
    ) -> Solution:
        """Solve with the first engine that can."""
        engine = self._serving(method, f, y0, norm, gradient.adjoint)
        assert engine is not None and gradient.adjoint in engine.adjoints, "refuses() says what is served"
        return engine.integrate(method, f, y0, ts, rtol=rtol, atol=atol, norm=norm, gradient=gradient)

    def _serving(self, method: Method, f: Dynamics, y0: Tensor, norm: Norm | None, adjoint: str) -> Engine | None:
        """The first engine that can serve such a solve."""
        for engine in self._engines:
            if engine.unsupported(method) is None and engine.refuses(method, f, y0, norm, adjoint) is None:
                return engine
        return None
