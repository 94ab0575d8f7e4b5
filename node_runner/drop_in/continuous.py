"""odeint_adjoint with an implicit method, forward or backward: by our own adjoint.

An implicit method needs the Jacobian of the backward system, which torchdiffeq's adjoint keeps to itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from node_runner.adjoints.continuous import ContinuousAdjoint
from node_runner.drop_in.decision import CALLBACKS
from node_runner.drop_in.flattened import Joined, joined, parts_of
from node_runner.drop_in.plan import Adjoint, Request
from node_runner.engines.extended import functions as extended
from node_runner.errors import ConfigError
from node_runner.tableaux import IMPLICIT
from node_runner.types import Dynamics, Integrate, Norm, Solution, SolveStats


def continuous(request: Request, adjoint: Adjoint) -> Any:
    """Serve a call.

    Raises:
        ConfigError: something that torchdiffeq's adjoint has and ours has not.
    """
    forward = dict(request.options or {})
    # As torchdiffeq: what the adjoint is not told, it takes from the forward solve.
    backward = {k: v for k, v in forward.items() if k != "norm"} if adjoint.options is None else dict(adjoint.options)
    norm = backward.pop("norm", None)
    method = adjoint.method or request.method
    if method != request.method and request.options is not None and adjoint.options is None:
        raise ConfigError("odeint_adjoint: an adjoint_method of its own needs adjoint_options, since there are options")
    field = _field(request, adjoint, norm)
    shapes = None
    y0 = request.y0
    if not isinstance(y0, Tensor):
        shapes = [part.shape for part in y0]
        y0, field = joined(y0), Joined(field, shapes)
    rtol = request.rtol if adjoint.rtol is None else adjoint.rtol
    atol = request.atol if adjoint.atol is None else adjoint.atol
    solve = ContinuousAdjoint(seminorm=norm == "seminorm").wrap(
        _integrate(request.method, request.rtol, request.atol, forward), _integrate(method, rtol, atol, backward)
    )
    ys = solve(field, y0, request.t).ys
    return ys if shapes is None else parts_of(ys, shapes)


def _field(request: Request, adjoint: Adjoint, norm: Any) -> nn.Module:
    """The field as a module, whose parameters are what gets gradients."""
    func = request.func
    reason = None
    if request.event_fn is not None:
        reason = "looks for no events"
    elif request.t.requires_grad:
        reason = "gives no gradient for t"
    elif norm not in (None, "seminorm"):
        reason = "has no norm of the user's for the adjoint"
    elif any(hasattr(func, name) for name in CALLBACKS):
        reason = "calls no callbacks"
    elif any(isinstance(tol, list | tuple) or (isinstance(tol, Tensor) and tol.ndim) for tol in
             (request.rtol, request.atol, adjoint.rtol, adjoint.atol)):  # fmt: skip
        reason = "takes one number as a tolerance"
    params = None if adjoint.params is None else tuple(adjoint.params)
    if isinstance(func, nn.Module):
        if params is not None and {id(p) for p in params} != {id(p) for p in func.parameters()}:
            reason = reason or "takes the parameters of func as adjoint_params"
        field = func
    elif params == ():
        field = _Function(func)
    else:
        reason = reason or "takes a func that is an nn.Module, or adjoint_params=()"
        field = nn.Module()
    if reason is not None:
        raise ConfigError(f"odeint_adjoint with an implicit method {reason}: use odeint, or another method")
    return field


def _integrate(method: str | None, rtol: Any, atol: Any, options: Mapping[str, Any]) -> Integrate:
    """A solve by the extended torchdiffeq."""

    def integrate(f: Dynamics, y0: Tensor, ts: Tensor, *, norm: Norm | None = None) -> Solution:
        given = dict(options)
        if method in IMPLICIT:
            given["samples"] = getattr(f, "samples", None)
        if norm is not None and "norm" not in given:
            given["norm"] = norm
        ys = extended.odeint(f, y0, ts, rtol=rtol, atol=atol, method=method, options=given)
        return Solution(ts, ys, SolveStats())

    return integrate


class _Function(nn.Module):
    """A plain function, without parameters."""

    def __init__(self, func: Callable[..., Any]) -> None:
        super().__init__()
        self.func = func

    def forward(self, t: Tensor, y: Any) -> Any:
        """t: (), y: as func takes it."""
        return self.func(t, y)
