"""What a module computes, from one run on a small batch: which functions of torch it called on what."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from node_runner.settings import HIGHEST_POWER, Activation


SLOPE = 0.01
"""Of a leaky activation below 0, where nothing else is said."""


class _Kind(NamedTuple):
    """An activation, the settings that its function takes after the tensor, and which of them make it that one."""

    activation: Activation
    settings: tuple[str, ...] = ()
    needs: Mapping[str, Any] = {}


ACTIVATIONS: dict[Callable[..., Any], _Kind] = {
    **{function: _Kind(Activation.tanh) for function in (torch.tanh_, Tensor.tanh_, F.tanh, Tensor.tanh, torch.tanh)},
    **{function: _Kind(Activation.sin) for function in (Tensor.sin, torch.sin)},
    **{function: _Kind(Activation.relu) for function in (torch.relu_, Tensor.relu_, Tensor.relu, torch.relu)},
    **{function: _Kind(Activation.sigmoid) for function in (
        torch.sigmoid_, Tensor.sigmoid_, F.sigmoid, Tensor.sigmoid, torch.sigmoid
    )},
    F.relu: _Kind(Activation.relu, ("inplace",)),
    F.leaky_relu: _Kind(Activation.leaky_relu, ("negative_slope", "inplace")),
    F.silu: _Kind(Activation.silu, ("inplace",)),
    F.softplus: _Kind(Activation.softplus, ("beta", "threshold"), {"beta": 1.0, "threshold": 20.0}),
    F.gelu: _Kind(Activation.gelu, ("approximate",), {"approximate": "none"}),
    F.elu: _Kind(Activation.elu, ("alpha", "inplace"), {"alpha": 1.0}),
}  # fmt: skip
"""The functions of each activation, in place or not, the plain one last."""

_PLAIN = {kind.activation: function for function, kind in ACTIVATIONS.items()}

CONCATENATE = (torch.cat, torch.concat, torch.concatenate)
POW = (torch.pow, torch.Tensor.pow, torch.Tensor.__pow__)
SQUARE = (torch.square, torch.Tensor.square)
MULTIPLY = (torch.mul, torch.multiply, torch.Tensor.mul, torch.Tensor.multiply)

NEGATE = (torch.neg, torch.negative, torch.Tensor.neg, torch.Tensor.negative)
ADD = (torch.add, torch.Tensor.add)
SUBTRACT = (torch.sub, torch.subtract, torch.Tensor.sub, torch.Tensor.subtract)
DIVIDE = (torch.div, torch.divide, torch.true_divide, torch.Tensor.div, torch.Tensor.divide, torch.Tensor.true_divide)

UNLIKE = "what its first layer sees is not the state, or a power of it, with or without the time beside it"


class NoChain(Exception):
    """What was computed is no chain of linear layers, with the reason."""


class Steps(NamedTuple):
    """What stands between y and the result.

    linears: first to last. activations: after each of them (None: nothing). slope: of the leaky ones below 0.
    time_input: whether the first of them sees the time too, time_first: before the state or after it. power: of each
    number of y, before that. scale, along: what comes after all of it, scale h + along y. time_cut: whether the time
    is a mere number to autograd, as torch.full makes it. counts: (part, name, by) of what is counted beside that, by
    how much, the part by its place among the module's.
    """

    linears: tuple[nn.Linear, ...]
    activations: tuple[Activation | None, ...]
    slope: float
    time_input: bool
    time_first: bool
    power: int
    scale: float = 1.0
    along: float = 0.0
    time_cut: bool = False
    counts: tuple[tuple[int, str, int], ...] = ()

    def value(self, t: Tensor, y: Tensor) -> Tensor:
        """f(t, y) as they say it: t (), y (..., D) -> (..., D)."""
        h = y**self.power
        if self.time_input:
            column = t.expand(*y.shape[:-1], 1)
            h = torch.cat((column, h) if self.time_first else (h, column), dim=-1)
        for linear, kind in zip(self.linears, self.activations, strict=True):
            h = linear(h)
            if kind is not None:
                h = F.leaky_relu(h, self.slope) if kind is Activation.leaky_relu else _PLAIN[kind](h)
        return h if (self.scale, self.along) == (1.0, 0.0) else self.scale * h + self.along * y


class _Call:
    """One call of a function of torch.

    Attributes:
        func, args, kwargs: as it was made.
        made_by: the calls that had made its tensors, by their identity, before it may have changed them.
        power: the p of a result that is y**p.
        version: of the result, which changes with its numbers.
    """

    def __init__(
        self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], made_by: Mapping[int, _Call | None]
    ) -> None:
        self.func, self.args, self.kwargs, self.made_by = func, args, kwargs, made_by
        self.power = self._power()
        self.version = 0

    def before(self, tensor: Any) -> _Call | None:
        """The call that made one of its tensors."""
        return self.made_by.get(id(tensor))

    def power_of(self, tensor: Any) -> int | None:
        """The p of one of its tensors that is y**p."""
        made = self.before(tensor)
        return None if made is None else made.power

    def _power(self) -> int | None:
        if self.func in MULTIPLY and len(self.args) == 2 and not self.kwargs:
            one, other = map(self.power_of, self.args)
            return None if one is None or other is None else one + other
        inner = self.power_of(self.args[0]) if self.args else None
        exponent = 2 if self.func in SQUARE else _exponent(self.args, self.kwargs) if self.func in POW else None
        return None if exponent is None or inner is None else inner * exponent


class _Recorder(TorchFunctionMode):
    """Notes every call of a function of torch."""

    def __init__(self, y: Tensor) -> None:
        super().__init__()
        state = _Call(None, (), {}, {})
        state.power = 1
        self.made: dict[int, _Call] = {id(y): state}
        self.kept: list[Any] = []  # so that no identity is used twice

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [x for arg in (*args, *kwargs.values()) for x in (arg if isinstance(arg, tuple | list) else (arg,))]
        call = _Call(func, args, kwargs, {id(x): self.maker(x) for x in given if isinstance(x, Tensor)})
        before = {id(x): x._version for x in given if isinstance(x, Tensor)}
        result = func(*args, **kwargs)
        self.kept.append((result, args, kwargs))
        if isinstance(result, Tensor) and before.get(id(result)) != result._version:  # y.contiguous() is y
            call.version = result._version
            self.made[id(result)] = call
        return result

    def maker(self, tensor: Any) -> _Call | None:
        """The call that a tensor is the result of, if it still has the numbers that it was made with."""
        made = self.made.get(id(tensor))
        return None if made is None or made.version != tensor._version else made


def record(
    module: nn.Module,
    linears: Sequence[nn.Linear],
    shape: Sequence[int],
    time: float,
    counters: Sequence[tuple[int, str]] = (),
) -> Steps:
    """Run a module on a state of a shape (..., D) at one time, and follow its result back to it.

    Args:
        module: f(t, y).
        linears: its layers.
        shape, time: of the run.
        counters: (part, name) of what it counts, which is as before after the run.

    Raises:
        NoChain: it is something else.
    """
    weight = linears[0].weight
    parts = tuple(module.modules())
    before = [getattr(parts[i], name) for i, name in counters]
    try:
        with torch.inference_mode(False), torch.enable_grad():
            y = torch.linspace(-0.7, 0.9, math.prod(shape), dtype=weight.dtype, device=weight.device).view(*shape)
            t = torch.tensor(time, dtype=weight.dtype, device=weight.device, requires_grad=True)
            recorder = _Recorder(y)
            with recorder:
                result = module(t, y)
    finally:
        counted = [getattr(parts[i], name) - value for (i, name), value in zip(counters, before, strict=True)]
        for (i, name), value in zip(counters, before, strict=True):
            setattr(parts[i], name, value)
    if y._version or t._version:
        raise NoChain("it changes the state or the time in place")
    steps = _followed(recorder.maker(result), {id(linear.weight): linear for linear in linears}, t, y)
    with torch.no_grad():
        same = torch.allclose(steps.value(t, y), result, rtol=1e-4, atol=1e-5, equal_nan=True)
    if not same:
        raise NoChain("its numbers are not those of the layers that were seen in it")
    return steps._replace(counts=tuple((i, name, by) for (i, name), by in zip(counters, counted, strict=True)))


def _followed(call: _Call | None, owners: Mapping[int, nn.Linear], t: Tensor, y: Tensor) -> Steps:
    """The steps from y to the result of a call.

    Args:
        call: the last one.
        owners: the layers, by the identity of their weights.
        t, y: what the module was given.

    Raises:
        NoChain: it is something else.
    """
    scale, call, along = _taken_apart(call)
    found: list[nn.Linear] = []
    kinds: list[Activation | None] = []
    slopes: set[float] = set()
    while True:
        kind = None
        if call is not None and call.func in ACTIVATIONS and call.args:
            kind, slope = _activation(call)
            slopes |= {slope} if kind is Activation.leaky_relu else set()
            call = call.before(call.args[0])
        if call is None or call.func is not F.linear or len(call.args) != 3 or id(call.args[1]) not in owners:
            name = getattr(None if call is None else call.func, "__name__", "something")
            raise NoChain(f"between or before its layers it has {name}" if found else f"its result is that of {name}")
        linear = owners[id(call.args[1])]
        if call.args[2] is not linear.bias or linear in found:
            raise NoChain("it uses a layer twice, or a part of one")
        found.append(linear)
        kinds.append(kind)
        call = call.before(call.args[0])
        if call is not None and (call.power is not None or call.func in CONCATENATE):
            timed = call.power is None
            first, cut, power = _beside_time(call, t, y) if timed else (False, False, call.power)
            return Steps(
                tuple(found[::-1]), tuple(kinds[::-1]), _one(slopes), timed, first, _known(power), scale, along, cut
            )


def _taken_apart(call: _Call | None) -> tuple[float, _Call | None, float]:
    """(a, h, b) of a result a h + b y, where h is what another call gave (None: there is none).

    Raises:
        NoChain: two results are added.
    """
    if call is None or call.kwargs:
        return 1.0, call, 0.0
    if call.power == 1:
        return 0.0, None, 1.0
    one, other = (*call.args, None, None)[:2]
    if call.func in NEGATE:
        return _times(-1.0, _taken_apart(call.before(one)))
    if call.func in MULTIPLY and _is_number(other):
        return _times(float(other), _taken_apart(call.before(one)))
    if call.func in MULTIPLY and _is_number(one):
        return _times(float(one), _taken_apart(call.before(other)))
    if call.func in DIVIDE and _is_number(other) and other != 0:
        return _times(1.0 / other, _taken_apart(call.before(one)))
    sign = 1.0 if call.func in ADD else -1.0 if call.func in SUBTRACT else 0.0
    if sign == 0.0 or not (isinstance(one, Tensor) and isinstance(other, Tensor)):
        return 1.0, call, 0.0
    (a, h, b), (c, k, d) = _taken_apart(call.before(one)), _times(sign, _taken_apart(call.before(other)))
    if call.before(one) is None or call.before(other) is None or (h is not None and k is not None):
        raise NoChain(f"it adds what is no multiple of its layers' result or of the state: {call.func.__name__}")
    return (a, h, b + d) if h is not None else (c, k, b + d)


def _times(factor: float, parts: tuple[float, _Call | None, float]) -> tuple[float, _Call | None, float]:
    if not math.isfinite(factor) or factor == 0.0:
        raise NoChain(f"it multiplies its result by {factor:g}")
    a, h, b = parts
    return factor * a, h, factor * b


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _one(slopes: set[float]) -> float:
    if len(slopes) > 1:
        raise NoChain("its leaky activations have several slopes")
    return next(iter(slopes), SLOPE)


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


def _exponent(args: Sequence[Any], kwargs: Mapping[str, Any]) -> int | None:
    """Of a call of pow, if it is a whole number above 0."""
    given = kwargs.get("exponent", args[1] if len(args) > 1 else None)
    return int(given) if isinstance(given, int | float) and given > 0 and given == int(given) else None


def _activation(call: _Call) -> tuple[Activation, float]:
    """Which activation a call is, and the slope of a leaky one.

    Raises:
        NoChain: it has settings of its own.
    """
    kind = ACTIVATIONS[call.func]
    given = {**dict(zip(kind.settings, call.args[1:], strict=False)), **call.kwargs}
    unknown = set(given) - set(kind.settings)
    if (
        unknown
        or len(call.args) > 1 + len(kind.settings)
        or any(given.get(name, value) != value for name, value in kind.needs.items())
    ):
        raise NoChain(f"its {kind.activation.value} has settings of its own")
    slope = given.get("negative_slope", SLOPE)
    if not isinstance(slope, int | float):
        raise NoChain(f"its {kind.activation.value} has settings of its own")
    return kind.activation, float(slope)


def _beside_time(call: _Call, t: Tensor, y: Tensor) -> tuple[bool, bool, int | None]:
    """Of a concatenation with the time along the last dimension: whether the time is first and cut, the state's power.

    Raises:
        NoChain: something else is concatenated.
    """
    given = {**dict(zip(("tensors", "dim"), call.args, strict=False)), **call.kwargs}
    parts, dim = given.get("tensors", ()), given.get("dim", given.get("axis", 0))
    if len(parts) != 2 or dim not in (y.ndim - 1, -1):
        raise NoChain(UNLIKE)
    powers = [call.power_of(part) for part in parts]
    first = powers[0] is None
    state, time = (parts[1], parts[0]) if first else parts
    column = (*y.shape[:-1], 1)
    if powers[first] is None or state.shape != y.shape:
        raise NoChain(UNLIKE)
    if time.shape != column or not torch.equal(time, t.expand(column)):
        raise NoChain("what its first layer sees beside the state is not the time")
    return first, not time.requires_grad, powers[first]
