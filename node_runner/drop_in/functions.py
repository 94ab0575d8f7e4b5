"""`odeint`, `odeint_adjoint` and `odeint_event`, with torchdiffeq's signatures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor

from node_runner.drop_in.compiling import compiled
from node_runner.drop_in.continuous import continuous
from node_runner.drop_in.counting import count
from node_runner.drop_in.decision import decide
from node_runner.drop_in.flattened import parts_of
from node_runner.drop_in.plan import Adjoint, Plan, Request
from node_runner.drop_in.second import differentiable_twice
from node_runner.engines.extended import functions as extended
from node_runner.engines.extended import original as torchdiffeq
from node_runner.errors import SolveFailed
from node_runner.tableaux import IMPLICIT


State = Any
"""A tensor, or a tuple of tensors."""


def odeint(
    func: Callable[..., Any],
    y0: State,
    t: Tensor,
    *,
    rtol: Any = 1e-7,
    atol: Any = 1e-9,
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    event_fn: Callable[..., Any] | None = None,
) -> Any:
    """Solve dy/dt = func(t, y), y(t[0]) = y0 at all of t; autograd differentiates the solver's own arithmetic.

    An engine of ours serves the call where one can, and torchdiffeq the others: see `node_runner.drop_in` for what
    differs, and `explain` for who serves a call.

    Args:
        func: f(t, y) -> dy/dt, of the state's shape.
        y0: the initial state, a tensor of any shape or a tuple of tensors.
        t: (T,) times, increasing or decreasing.
        rtol, atol: bounds on the error of a step: numbers, tensors, or a tuple for a state that is one.
        method: by torchdiffeq's name (None: dopri5), tsit5 and the implicit methods among them.
        options: of the method, by torchdiffeq's names.
        event_fn: g(t, y): the solve ends where it is zero, and t has two entries, of which the second is ignored.

    Returns:
        The states (T, ...) at all times; with event_fn the event's time, and the states at the start and there.
    """
    served = _by_an_engine(Request(func, y0, t, rtol, atol, method, options, event_fn))
    if served is not None:
        return served
    return _home(method).odeint(func, y0, t, rtol=rtol, atol=atol, method=method, options=options, event_fn=event_fn)


def odeint_adjoint(
    func: Callable[..., Any],
    y0: State,
    t: Tensor,
    *,
    rtol: Any = 1e-7,
    atol: Any = 1e-9,
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    event_fn: Callable[..., Any] | None = None,
    adjoint_rtol: Any = None,
    adjoint_atol: Any = None,
    adjoint_method: str | None = None,
    adjoint_options: Mapping[str, Any] | None = None,
    adjoint_params: Iterable[Tensor] | None = None,
) -> Any:
    """Like `odeint`, with the gradient by a second solve backward in time (the continuous adjoint).

    Args:
        func: an nn.Module, whose parameters get gradients, or any function with `adjoint_params`.
        y0, t, rtol, atol, method, options, event_fn: as for `odeint`.
        adjoint_rtol, adjoint_atol, adjoint_method: of the backward solve (None: those of the forward solve).
        adjoint_options: likewise; norm="seminorm" leaves the parameters out of the error of a step.
        adjoint_params: what gets gradients beside y0 and t (None: the parameters of func).
    """
    adjoint_params = None if adjoint_params is None else tuple(adjoint_params)
    adjoint = Adjoint(adjoint_rtol, adjoint_atol, adjoint_method, adjoint_options, adjoint_params)
    request = Request(func, y0, t, rtol, atol, method, options, event_fn, adjoint)
    served = _by_an_engine(request)
    if served is not None:
        return served
    backward = adjoint_method or method
    if method in IMPLICIT or backward in IMPLICIT:
        return continuous(request, adjoint)
    home = _home(method if method in extended.METHODS else backward)
    return home.odeint_adjoint(
        func, y0, t, rtol=rtol, atol=atol, method=method, options=options, event_fn=event_fn,
        adjoint_rtol=adjoint_rtol, adjoint_atol=adjoint_atol, adjoint_method=adjoint_method,
        adjoint_options=adjoint_options, adjoint_params=adjoint_params,
    )  # fmt: skip


def odeint_event(
    func: Callable[..., Any],
    y0: State,
    t0: Tensor,
    *,
    event_fn: Callable[..., Any],
    reverse_time: bool = False,
    odeint_interface: Callable[..., Any] = odeint,
    **kwargs: Any,
) -> Any:
    """The time at which event_fn(t, y) is zero, and the states at t0 and there, with the gradient of that time.

    torchdiffeq's function; `odeint_interface` may be `odeint` or `odeint_adjoint` of this package or of torchdiffeq.
    """
    return torchdiffeq.odeint_event(
        func, y0, t0, event_fn=event_fn, reverse_time=reverse_time, odeint_interface=odeint_interface, **kwargs
    )


def explain(
    func: Callable[..., Any],
    y0: State,
    t: Tensor,
    *,
    adjoint: bool = False,
    rtol: Any = 1e-7,
    atol: Any = 1e-9,
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    event_fn: Callable[..., Any] | None = None,
    adjoint_rtol: Any = None,
    adjoint_atol: Any = None,
    adjoint_method: str | None = None,
    adjoint_options: Mapping[str, Any] | None = None,
    adjoint_params: Iterable[Tensor] | None = None,
) -> str:
    """Who would serve a call, in one sentence, and why no engine of ours where none would.

    Args:
        func, y0, t, rtol, atol, method, options, event_fn: of the call.
        adjoint: whether it is one of `odeint_adjoint` (any of the following says so too).
        adjoint_rtol, adjoint_atol, adjoint_method, adjoint_options, adjoint_params: of the call.
    """
    adjoint_params = None if adjoint_params is None else tuple(adjoint_params)
    given = (adjoint_rtol, adjoint_atol, adjoint_method, adjoint_options, adjoint_params)
    adjoint = adjoint or any(value is not None for value in given)
    plan = decide(Request(func, y0, t, rtol, atol, method, options, event_fn, Adjoint(*given) if adjoint else None))
    if isinstance(plan, Plan):
        return f"engine={plan.engine.name} serves this call"
    who = f"{method} of node-runner in torchdiffeq's loop" if method in extended.METHODS else "torchdiffeq"
    return f"{who} serves this call: {plan}"


def _by_an_engine(request: Request) -> Any:
    """The states, if an engine serves the call and does not give up: torchdiffeq's error is what the caller knows."""
    plan = decide(request)
    if not isinstance(plan, Plan) or (plan.reading is not None and not compiled(plan)):
        return None
    try:
        return _served(plan, request)
    except SolveFailed:
        return None


def _served(plan: Plan, request: Request) -> Any:
    """The states, by an engine."""
    solution = plan.engine.integrate(
        plan.method, plan.field, plan.y0, request.t, rtol=plan.rtol, atol=plan.atol, norm=plan.norm,
        gradient=plan.gradient,
    )  # fmt: skip
    stats = solution.stats
    count(plan.counters, stats.nfe_forward)
    made = solution.ys.grad_fn
    if plan.counters and request.adjoint is not None and made is not None:
        made.register_hook(lambda *_: count(plan.counters, stats.nfe_backward))  # after each backward solve
    shape = request.y0.shape if isinstance(request.y0, Tensor) else plan.y0.shape
    ys = solution.ys.view(len(request.t), *shape)
    if request.adjoint is None:
        ys = differentiable_twice(request, plan, ys)
    return ys if isinstance(request.y0, Tensor) else parts_of(ys, [part.shape for part in request.y0])


def _home(method: str | None) -> Any:
    """The module whose functions know a method: torchdiffeq, or its copy with our methods."""
    from torchdiffeq._impl.odeint import SOLVERS

    ours = method in extended.METHODS or not (method is None or method in SOLVERS)
    return extended.package() if ours else torchdiffeq
