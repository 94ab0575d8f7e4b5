"""A call of torchdiffeq's functions, and how an engine of ours serves it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from node_runner.drop_in.counting import Counter
from node_runner.engines.compiled.reading import Reading
from node_runner.types import Dynamics, Engine, Gradient, Method, Norm


@dataclass(frozen=True)
class Adjoint:
    """What odeint_adjoint takes beside what odeint takes."""

    rtol: Any = None
    atol: Any = None
    method: str | None = None
    options: Mapping[str, Any] | None = None
    params: Iterable[Any] | None = None


@dataclass(frozen=True)
class Request:
    """A call, as the user made it. adjoint: of odeint_adjoint (None: the call is odeint's)."""

    func: Callable[..., Any]
    y0: Any
    t: Any
    rtol: Any
    atol: Any
    method: str | None
    options: Mapping[str, Any] | None
    event_fn: Callable[..., Any] | None
    adjoint: Adjoint | None = None


class Plan(NamedTuple):
    """How an engine serves a call.

    Attributes:
        engine, field, method, rtol, atol, gradient, norm: of the solve.
        y0: the state as the engine has it: (B, D) or any other shape, or a tuple in one vector.
        func: the user's field, as a module.
        counters: that rise with each evaluation.
        reading: of the field, for an engine that compiles.
    """

    engine: Engine
    field: Dynamics
    method: Method
    y0: Tensor
    rtol: float
    atol: float
    gradient: Gradient
    func: nn.Module
    counters: tuple[Counter, ...] = ()
    norm: Norm | None = None
    reading: Reading | None = None

    @property
    def tensors(self) -> list[Tensor]:
        """What a gradient goes to, beside the state."""
        if self.reading is None:
            return list(self.func.parameters())
        return [tensor for tensor in self.reading.tensors if tensor.requires_grad]
