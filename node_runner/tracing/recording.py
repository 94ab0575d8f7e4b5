"""What a module computes, from one run on a small batch: which functions of torch it called on what."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from node_runner.settings import HIGHEST_POWER, Activation


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
POW = (torch.pow, torch.Tensor.pow, torch.Tensor.__pow__)
SQUARE = (torch.square, torch.Tensor.square)
MULTIPLY = (torch.mul, torch.multiply, torch.Tensor.mul, torch.Tensor.multiply)

UNLIKE = "what its first layer sees is not the state, or a power of it, with or without the time after it"


class NoChain(Exception):
    """What was computed is no chain of linear layers, with the reason."""


class Steps(NamedTuple):
    """What stands between y and the result.

    linears: first to last. power: of each number of y, before the first of them.
    """

    linears: tuple[nn.Linear, ...]
    activation: Activation
    time_input: bool
    power: int


class _Recorder(TorchFunctionMode):
    """Notes every call of a function of torch, and which results are powers of a state y."""

    def __init__(self, y: Tensor) -> None:
        super().__init__()
        self.made: dict[int, tuple[Callable[..., Any], Sequence[Any], dict[str, Any]]] = {}
        self.powers: dict[int, int | None] = {id(y): 1}
        self.kept: list[Any] = []  # so that no identity is used twice

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.kept.append((result, args))
        if isinstance(result, Tensor):
            self.made[id(result)] = (func, args, kwargs or {})
            self.powers.setdefault(id(result), self._power(func, args, kwargs or {}))  # y.contiguous() is y
        return result

    def maker(self, tensor: Any) -> tuple[Callable[..., Any] | None, Sequence[Any], dict[str, Any]]:
        """The call that a tensor is the result of, or none."""
        return self.made.get(id(tensor), (None, (), {}))

    def power(self, tensor: Any) -> int | None:
        """The p of a tensor that was made as y**p and is that still, and None of any other."""
        changed = isinstance(tensor, Tensor) and tensor._version > 0
        return None if changed else self.powers.get(id(tensor))

    def _power(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> int | None:
        if func in MULTIPLY and len(args) == 2 and not kwargs:
            one, other = map(self.power, args)
            return None if one is None or other is None else one + other
        inner = self.power(args[0]) if args else None
        exponent = 2 if func in SQUARE else _exponent(args, kwargs) if func in POW else None
        return None if exponent is None or inner is None else inner * exponent


def record(module: nn.Module, linears: Sequence[nn.Linear], shape: Sequence[int], time: float) -> Steps:
    """Run a module on a state of a shape (..., D) at one time, and follow its result back to it.

    Raises:
        NoChain: it is something else.
    """
    weight = linears[0].weight
    y = torch.linspace(-0.7, 0.9, math.prod(shape), dtype=weight.dtype, device=weight.device).view(*shape)
    t = torch.tensor(time, dtype=weight.dtype, device=weight.device)
    recorder = _Recorder(y)
    with torch.no_grad(), recorder:
        result = module(t, y)
    if y._version or t._version:
        raise NoChain("it changes the state or the time in place")
    owners = {id(linear.weight): linear for linear in linears}
    found: list[nn.Linear] = []
    kinds: set[Activation] = set()
    at = result
    while True:
        func, args, kwargs = recorder.maker(at)
        if func is not F.linear or kwargs or len(args) != 3 or id(args[1]) not in owners:
            raise NoChain("it is not linear layers with one activation between them")
        linear = owners[id(args[1])]
        if args[2] is not linear.bias or linear in found:
            raise NoChain("it uses a layer twice, or a part of one")
        found.append(linear)
        at = args[0]
        func, args, kwargs = recorder.maker(at)
        timed = func in CONCATENATE
        power = recorder.power(_beside_time(args, kwargs, y, t) if timed else at)
        if timed or power is not None:
            return Steps(tuple(reversed(found)), _one(kinds), timed, _known(power))
        kinds.add(_activation(func, args, kwargs))
        at = args[0]


def _known(power: int | None) -> int:
    """The power of the state that the first layer sees.

    Raises:
        NoChain: it sees something else, or too high a power.
    """
    if power is None:
        raise NoChain(UNLIKE)
    if power > HIGHEST_POWER:
        raise NoChain(f"its first layer sees y**{power}, and the highest power known here is {HIGHEST_POWER}")
    return power


def _exponent(args: Sequence[Any], kwargs: dict[str, Any]) -> int | None:
    """Of a call of pow, if it is a whole number above 0."""
    given = kwargs.get("exponent", args[1] if len(args) > 1 else None)
    return int(given) if isinstance(given, int | float) and given > 0 and given == int(given) else None


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


def _beside_time(args: Sequence[Any], kwargs: dict[str, Any], y: Tensor, t: Tensor) -> Any:
    """What is concatenated with the time after it, along the last dimension.

    Raises:
        NoChain: something else is.
    """
    given = {**dict(zip(("tensors", "dim"), args, strict=False)), **kwargs}
    parts, dim = given.get("tensors", ()), given.get("dim", 0)
    if len(parts) != 2 or dim not in (y.ndim - 1, -1) or parts[0].shape != y.shape:
        raise NoChain(UNLIKE)
    column = (*y.shape[:-1], 1)
    if parts[1].shape != column or not torch.equal(parts[1], t.expand(column)):
        raise NoChain("what its first layer sees beside the state is not the time")
    return parts[0]
