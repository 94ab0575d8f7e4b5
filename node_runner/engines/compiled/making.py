"""What is compiled before a run begins."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from node_runner.errors import SolveFailed
from node_runner.types import Dynamics, Engine, Gradient, Method, Norm


INSTANT = 1e-3
"""Time that a rehearsed solve covers."""

ONE_AT_A_TIME = threading.Lock()
"""Held by a rehearsed solve: while one traces a field that others share, it has tensors without numbers in it."""


@dataclass(frozen=True)
class Making:
    """Compiles what a kind of solve needs; equal for solves that need the same."""

    key: Any
    make: Callable[[], object] = field(compare=False)

    def __call__(self) -> object:
        """Compile it."""
        return self.make()


class Rehearsed:
    """A short solve and its gradient, for what is compiled on the way.

    Args:
        engine: that solves.
        method: of the solve.
        f: the field, with its modules in the mode that they are in now.
        norm: of an error.
        y0: (B, D...) states.
        adjoint: the gradient's name, or None without one.
    """

    def __init__(
        self, engine: Engine, method: Method, f: Dynamics, norm: Norm | None, y0: Tensor, adjoint: str | None
    ) -> None:
        self.engine, self.method, self.f, self.norm, self.y0, self.adjoint = engine, method, f, norm, y0, adjoint
        modules = list(f.modules()) if isinstance(f, nn.Module) else []
        self.modes = [(module, module.training) for module in modules]

    def __call__(self) -> None:
        """Solve."""
        with ONE_AT_A_TIME:
            self._in_mode()

    def _in_mode(self) -> None:
        before = [(module, module.training) for module, _ in self.modes]
        _switch(self.modes)
        try:
            with torch.set_grad_enabled(self.adjoint is not None), suppress(SolveFailed):
                self._solve()
        finally:
            _switch(before)

    def _solve(self) -> None:
        y0 = self.y0.clone().requires_grad_(self.adjoint is not None)
        ts = torch.tensor([0.0, INSTANT], dtype=torch.float64, device=y0.device)
        own = Gradient(self.adjoint or "off", 1.0, 1.0)
        ys = self.engine.integrate(self.method, self.f, y0, ts, rtol=1.0, atol=1.0, norm=self.norm, gradient=own).ys
        if ys.requires_grad:
            torch.autograd.grad(ys.sum(), y0)


def _switch(modes: list[tuple[nn.Module, bool]]) -> None:
    for module, training in modes:
        module.training = training
