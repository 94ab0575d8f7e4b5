"""Which calls of torchdiffeq's functions an engine of ours can serve, and why the others cannot be."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from node_runner.drop_in.compiling import failed
from node_runner.drop_in.counting import Counter, counters_in, counters_of, elsewhere
from node_runner.drop_in.flattened import Compilable, Flattened, Largest, flat, joined
from node_runner.drop_in.plan import Plan, Request
from node_runner.drop_in.switch import chosen
from node_runner.engines import ENGINES
from node_runner.engines.compiled.reading import Unreadable, read
from node_runner.errors import ConfigError
from node_runner.forms import form_of_chain
from node_runner.solvers import SOLVERS
from node_runner.tracing import as_module, chain_of
from node_runner.types import Dynamics, Engine, Gradient, Method, Norm


CALLBACKS = tuple(
    f"callback_{name}{suffix}" for name in ("step", "accept_step", "reject_step") for suffix in ("", "_adjoint")
)
ADAPTIVE = ("first_step", "min_step", "max_step", "safety", "ifactor", "dfactor", "max_num_steps")
FIXED = ("step_size", "interp", "perturb")
UNBOUNDED = 2**31 - 1
"""What torchdiffeq takes for no bound on the number of steps."""


class _Call(NamedTuple):
    """What all engines are told of a call. y0: the state, one that is a tuple in one vector; shapes: of its parts."""

    request: Request
    y0: Tensor
    shapes: tuple[torch.Size, ...] | None
    method: Method
    rtol: float
    atol: float


class _Not(Exception):
    """The reason why no engine serves a call."""


def decide(request: Request) -> Plan | str:
    """The plan of a call that an engine can serve, or in words why none can. Nothing is computed but trials."""
    try:
        _check_surroundings(request)
        y0, shapes = _state(request.y0)
        t = _times(request.t, y0)
        method = _method(request.method, request.options)
        if t.dtype != y0.dtype and not (method.adaptive and y0.dtype is torch.float64):
            raise _Not("t and the state differ in dtype")
        rtol, atol = _number("rtol", request.rtol), _number("atol", request.atol)
        call = _Call(request, y0, shapes, method, rtol, atol)
    except _Not as reason:
        return str(reason)
    reasons = []
    for serve in (_by_native, _by_compiled) if chosen() == "compiled" else (_by_native,):
        try:
            return serve(call)
        except _Not as reason:
            reasons.append(str(reason))
    return "; ".join(dict.fromkeys(reasons))


def _by_native(call: _Call) -> Plan:
    request, y0, method = call.request, call.y0, call.method
    if call.shapes is not None:
        raise _Not("the state is a tuple")
    func, field, counters = _written_out(request.func, y0, discrete=request.adjoint is None)
    if counters and request.adjoint is not None and method.options.get("interp") == "cubic":
        raise _Not("it counts the calls of an adjoint whose cubics no engine evaluates at all ends")
    gradient = _gradient(call, func, frozen=False)
    state = flat(y0)
    engine = _engine(_engines(), method, field, state, None, gradient)
    return Plan(engine, field, method, state, call.rtol, call.atol, gradient, func, counters)


def _by_compiled(call: _Call) -> Plan:
    request, method = call.request, call.method
    func = as_module(request.func)
    counters = counters_in(func)
    if counters and request.adjoint is not None and method.options.get("interp") == "cubic":
        raise _Not("it counts the calls of an adjoint whose cubics no engine evaluates at all ends")
    field = Compilable(func, call.shapes, counters)
    norm = None if call.shapes is None else Largest(call.shapes)
    gradient = _gradient(call, func, frozen=True)
    try:
        reading = read(field, norm)
    except Unreadable as reason:
        raise _Not(f"engine=compiled cannot serve it: the field {reason}") from reason
    if name := elsewhere(counters, reading.codes):
        raise _Not(f"engine=compiled cannot serve it: the field counts in `{name}` and reads it")
    parameters = {id(p) for p in func.parameters()}
    if request.adjoint is not None and any(x.requires_grad and id(x) not in parameters for x in reading.tensors):
        raise _Not("engine=compiled cannot serve it: tensors that are none of its parameters require a gradient")
    engine = _engine(_compilers(), method, field, call.y0, norm, gradient)
    plan = Plan(engine, field, method, call.y0, call.rtol, call.atol, gradient, func, counters, norm, reading)
    if failure := failed(plan):
        raise _Not(failure)
    return plan


def _check_surroundings(request: Request) -> None:
    if not chosen():
        raise _Not("the fast path is switched off")
    if request.event_fn is not None:
        raise _Not("it looks for an event")
    if torch.compiler.is_compiling():
        raise _Not("torch.compile is at work")
    if torch.autograd.forward_ad._current_level >= 0 or torch._C._functorch.peek_interpreter_stack() is not None:
        raise _Not("it is inside a transformation of torch.func or forward-mode AD")
    for name in CALLBACKS:
        if hasattr(request.func, name):
            raise _Not(f"the field has {name}")


def _state(y0: Any) -> tuple[Tensor, tuple[torch.Size, ...] | None]:
    """The state as one tensor, and if it is a tuple, the shapes of its parts."""
    if isinstance(y0, Tensor):
        return _tensor(y0), None
    if chosen() != "compiled" or not isinstance(y0, tuple) or not y0:
        raise _Not("the state is a tuple")
    parts = [_tensor(part.reshape(-1) if isinstance(part, Tensor) else part) for part in y0]
    if len({(part.dtype, part.device) for part in parts}) > 1:
        raise _Not("the parts of the state differ in dtype or device")
    return joined(parts), tuple(part.shape for part in y0)


def _tensor(y0: Any) -> Tensor:
    if type(y0) not in (Tensor, nn.Parameter):
        raise _Not(f"the state is a {type(y0).__name__}")
    if not y0.is_floating_point():
        raise _Not(f"the state is of {str(y0.dtype).removeprefix('torch.')}")
    if y0.ndim == 0 or y0.numel() == 0:
        raise _Not(f"the state has no dimension, or no numbers: {tuple(y0.shape)}")
    if torch.is_autocast_enabled(y0.device.type):
        raise _Not("autocast is on")
    return y0


def _times(t: Any, y0: Tensor) -> Tensor:
    if type(t) is not Tensor or not t.is_floating_point() or t.ndim != 1 or len(t) < 2:
        raise _Not("t is not a tensor (T,) of at least two times")
    if t.requires_grad:
        raise _Not("t requires a gradient")
    if t.device != y0.device:
        raise _Not("t and the state are on different devices")
    rising = t[1:] > t[:-1]
    if not (bool(rising.all()) or bool((t[1:] < t[:-1]).all())):
        raise _Not("t neither increases nor decreases")
    return t


def _number(name: str, value: Any) -> float:
    if isinstance(value, Tensor) and value.ndim == 0 and not value.requires_grad and value.device.type == "cpu":
        value = float(value)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _Not(f"{name} is not one number")
    return float(value)


def _method(name: str | None, options: Mapping[str, Any] | None) -> Method:
    name = name or "dopri5"
    known = _options_of(name)
    if not known:
        raise _Not(f"method={name} is no explicit Runge-Kutta method")
    given = dict(options or {})
    if given.get("dtype") is torch.float64:
        del given["dtype"]
    given = {key: value for key, value in given.items() if value is not None}
    for key, value in given.items():
        if key not in known:
            raise _Not(f"it has the option {key}")
        if key in ("interp", "perturb"):
            if value not in (("linear", "cubic") if key == "interp" else (False, True)):
                raise _Not(f"the option {key} is {value!r}")
        elif not isinstance(value, int | float) or isinstance(value, bool):
            raise _Not(f"the option {key} is not a plain number")
        elif value < 0 or (value == 0 and key != "min_step"):
            raise _Not(f"the option {key} is not above 0")
        elif key == "max_num_steps" and not (isinstance(value, int) and value <= UNBOUNDED):
            raise _Not(f"the option {key} is no whole number of 32 bits")
    return _built(name, tuple(sorted(given.items())))


@functools.cache
def _options_of(name: str) -> tuple[str, ...]:
    """The options that a method takes, if it is an explicit Runge-Kutta method."""
    if name not in SOLVERS.names():
        return ()
    method = SOLVERS.get(name)(name)
    return () if method.tableau is None else ADAPTIVE if method.adaptive else FIXED


@functools.lru_cache(maxsize=256)
def _built(name: str, options: tuple[tuple[str, Any], ...]) -> Method:
    from node_runner.settings import Interpolation

    settings = dict(options)
    if "interp" in settings:
        settings["interp"] = Interpolation(settings["interp"])
    if settings.get("max_step") == math.inf:
        del settings["max_step"]
    if _options_of(name) is ADAPTIVE:
        # Of each interval in torchdiffeq, of all of them here: where these are spent, torchdiffeq is asked.
        settings["max_steps"] = settings.pop("max_num_steps", UNBOUNDED)
    try:
        return SOLVERS.get(name)(name, **settings)
    except ConfigError as error:
        raise _Not(str(error)) from error


def _written_out(
    func: Callable[..., Any], y0: Tensor, *, discrete: bool
) -> tuple[nn.Module, Dynamics, tuple[Counter, ...]]:
    """The field as a module and as an engine is handed it, for states (B, D), and what it counts.

    discrete: no adjoint is solved.
    """
    name = type(func).__name__ if isinstance(func, nn.Module) else getattr(func, "__name__", type(func).__name__)
    if callable(getattr(func, "form", None)) and isinstance(func, nn.Module):  # it says itself what it is made of
        if y0.ndim != 2:
            raise _Not(f"{name} is for states (B, D), and the state is of shape {tuple(y0.shape)}")
        return func, func, ()
    module = as_module(func)
    chain = chain_of(module, y0.shape[:-1], counting=True, discrete=discrete)
    if isinstance(chain, str):
        raise _Not(f"{name} is not known to be linear layers with activations: {chain}")
    return module, Flattened(module, y0.shape, form_of_chain(chain)), counters_of(module, chain.counts)


def _gradient(call: _Call, func: nn.Module, *, frozen: bool) -> Gradient:
    """The gradient that is asked for. frozen: whether some of the parameters may want none."""
    request, adjoint = call.request, call.request.adjoint
    if adjoint is None:
        return Gradient()
    if adjoint.params is None and not isinstance(request.func, nn.Module):
        raise _Not("the field is no nn.Module, whose parameters could be found")
    parameters = list(func.parameters())
    if not frozen and any(not p.requires_grad for p in parameters):
        raise _Not("the field has frozen parameters, which torchdiffeq leaves out of the adjoint's norm")
    if adjoint.params is not None and not _same(adjoint.params, parameters):
        raise _Not("adjoint_params are not the field's parameters")
    if adjoint.method not in (None, request.method):
        raise _Not("the adjoint has a method of its own")
    forward = {key: value for key, value in (request.options or {}).items() if key != "norm"}
    backward = forward if adjoint.options is None else dict(adjoint.options)
    norm = backward.pop("norm", None) if adjoint.options is not None else None
    if norm not in (None, "seminorm"):
        raise _Not("the adjoint has a norm of its own")
    if backward != forward:
        raise _Not("adjoint_options are not options")
    seminorm = norm == "seminorm" and _method(request.method, request.options).adaptive
    return Gradient(
        "seminorm" if seminorm else "on",
        call.rtol if adjoint.rtol is None else _number("adjoint_rtol", adjoint.rtol),
        call.atol if adjoint.atol is None else _number("adjoint_atol", adjoint.atol),
    )


def _same(params: Iterable[Any], parameters: list[nn.Parameter]) -> bool:
    """Whether these are the parameters that want a gradient, in any order."""
    given, own = ([id(p) for p in tensors if p.requires_grad] for tensors in (params, parameters))
    return sorted(given) == sorted(own)


@functools.cache
def _engines() -> tuple[Engine, ...]:
    """Ours that need not compile for each new field."""
    return (ENGINES.get("native")(),)


@functools.cache
def _compilers() -> tuple[Engine, ...]:
    """Those that must."""
    return (ENGINES.get("compiled")(),)


def _engine(
    engines: Iterable[Engine], method: Method, func: Dynamics, y0: Tensor, norm: Norm | None, gradient: Gradient
) -> Engine:
    reasons = []
    for engine in engines:
        reason = engine.unsupported(method)
        if reason is None and gradient.adjoint not in engine.adjoints:
            reason = f"engine={engine.name} has no adjoint={gradient.adjoint}"
        reason = reason or engine.refuses(method, func, y0, norm, gradient.adjoint)
        if reason is None:
            return engine
        reasons.append(reason)
    raise _Not("; ".join(reasons))
