"""What a module computes, from one run on a small batch: which functions of torch it called on what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from node_runner.settings import Activation


ACTIVATIONS: dict[Callable[..., Any], tuple[Activation, tuple[tuple[str, Any], ...]]] = {
    **{function: (Activation.tanh, ()) for function in (torch.tanh, torch.Tensor.tanh, F.tanh)},
    **{function: (Activation.sin, ()) for function in (torch.sin, torch.Tensor.sin)},
    **{function: (Activation.relu, ()) for function in (torch.relu, torch.Tensor.relu)},
    F.relu: (Activation.relu, (("inplace", False),)),
    F.silu: (Activation.silu, (("inplace", False),)),
    F.softplus: (Activation.softplus, (("beta", 1.0), ("threshold", 20.0))),
    F.gelu: (Activation.gelu, (("approximate", "none"),)),
    F.elu: (Activation.elu, (("alpha", 1.0), ("inplace", False))),
}
"""The functions of each activation, and the settings under which they are that activation."""

CONCATENATE = (torch.cat, torch.concat, torch.concatenate)


class NoChain(Exception):
    """What was computed is no chain of linear layers, with the reason."""


class Steps(NamedTuple):
    """What stands between y and the result. linears: first to last."""

    linears: tuple[nn.Linear, ...]
    activation: Activation
    time_input: bool


class _Recorder(TorchFunctionMode):
    """Notes every call of a function of torch."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, tuple[Callable[..., Any], Sequence[Any], dict[str, Any]]] = {}
        self.kept: list[Any] = []  # so that no identity is used twice

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.kept.append((result, args))
        if isinstance(result, Tensor):
            self.made[id(result)] = (func, args, kwargs or {})
        return result


def record(module: nn.Module, linears: Sequence[nn.Linear], size: int, batch: int, time: float) -> Steps:
    """Run a module on a batch of states (batch, size) at one time, and follow its result back to them.

    Raises:
        NoChain: it is something else.
    """
    weight = linears[0].weight
    y = torch.linspace(-0.7, 0.9, batch * size, dtype=weight.dtype, device=weight.device).view(batch, size)
    t = torch.tensor(time, dtype=weight.dtype, device=weight.device)
    recorder = _Recorder()
    with torch.no_grad(), recorder:
        result = module(t, y)
    owners = {id(linear.weight): linear for linear in linears}
    found: list[nn.Linear] = []
    kinds: set[Activation] = set()
    at = result
    while True:
        func, args, kwargs = recorder.made.get(id(at), (None, (), {}))
        if func is not F.linear or kwargs or len(args) != 3 or id(args[1]) not in owners:
            raise NoChain("it is not linear layers with one activation between them")
        linear = owners[id(args[1])]
        if args[2] is not linear.bias or linear in found:
            raise NoChain("it uses a layer twice, or a part of one")
        found.append(linear)
        at = args[0]
        if at is y:
            return Steps(tuple(reversed(found)), _one(kinds), time_input=False)
        func, args, kwargs = recorder.made.get(id(at), (None, (), {}))
        if func in CONCATENATE:
            _check_time(args, kwargs, y, t)
            return Steps(tuple(reversed(found)), _one(kinds), time_input=True)
        kinds.add(_activation(func, args, kwargs))
        at = args[0]


def _one(kinds: set[Activation]) -> Activation:
    if len(kinds) != 1:
        raise NoChain("it has not one activation but several, or none")
    return next(iter(kinds))


def _activation(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Activation:
    """Which activation a call is.

    Raises:
        NoChain: none, or one with settings of its own.
    """
    known = ACTIVATIONS.get(func)
    if known is None:
        name = getattr(func, "__name__", None)
        raise NoChain(f"between its layers it has {name or 'something'}, which is none of the activations known here")
    kind, defaults = known
    given = {**dict(zip((name for name, _ in defaults), args[1:], strict=False)), **kwargs}
    if any(given.get(name, value) != value for name, value in defaults) or len(args) > 1 + len(defaults):
        raise NoChain(f"its {kind.value} has settings of its own")
    return kind


def _check_time(args: Sequence[Any], kwargs: dict[str, Any], y: Tensor, t: Tensor) -> None:
    """The first layer's input is [y, t]."""
    given = {**dict(zip(("tensors", "dim"), args, strict=False)), **kwargs}
    parts, dim = given.get("tensors", ()), given.get("dim", 0)
    if len(parts) != 2 or dim not in (1, -1) or parts[0] is not y:
        raise NoChain("what its first layer sees is not the state, nor the state and then the time")
    if parts[1].shape != (len(y), 1) or not torch.equal(parts[1], t.expand(len(y), 1)):
        raise NoChain("what its first layer sees beside the state is not the time")
