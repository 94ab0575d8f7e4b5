"""engine=auto: the fastest engine that can serve each solve."""

from __future__ import annotations

from torch import Tensor

from node_runner.engines import ENGINES
from node_runner.types import DISCRETE, Dynamics, Engine, Gradient, Method, Norm, Solution


ORDER = ("native", "torchdiffeq")
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
        """What the last engine says, which can do the most."""
        return self._engines[-1].unsupported(method)

    def refuses(self, method: Method, f: Dynamics, y0: Tensor, norm: Norm | None, adjoint: str) -> str | None:
        """What the last engine says."""
        return self._engines[-1].refuses(method, f, y0, norm, adjoint)

    def prepare(self, method: Method, f: Dynamics, y0: Tensor, adjoint: str | None) -> None:
        """Nothing."""

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
        for engine in self._engines:
            fits = engine.unsupported(method) is None and gradient.adjoint in engine.adjoints
            if fits and engine.refuses(method, f, y0, norm, gradient.adjoint) is None:
                return engine.integrate(method, f, y0, ts, rtol=rtol, atol=atol, norm=norm, gradient=gradient)
        raise AssertionError("the last engine serves every solve")
