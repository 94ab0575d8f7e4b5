"""Second derivatives of a served call: by torchdiffeq, which solves again when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from node_runner.drop_in.counting import uncounted
from node_runner.drop_in.flattened import joined, parts_of
from node_runner.drop_in.plan import Plan, Request
from node_runner.engines.extended import functions as extended
from node_runner.engines.extended import original as torchdiffeq


def differentiable_twice(request: Request, plan: Plan, ys: Tensor) -> Tensor:
    """The states of a served call of `odeint`, whose gradient has a gradient too.

    Engines compute numbers, not a graph of them. With create_graph=True the gradient is therefore that of
    torchdiffeq's own solve of the same call, which is not counted: torchdiffeq would not have solved again.

    Args:
        request: the call.
        plan: by which it was served.
        ys: (T, ...) the states, of a tuple in one vector each.
    """
    if not ys.requires_grad:
        return ys
    y0 = request.y0 if isinstance(request.y0, Tensor) else plan.y0
    again: Tensor = _Again.apply(request, plan, ys, y0, *plan.tensors)
    return again


class _Again(torch.autograd.Function):
    """(request, plan, ys, y0, *tensors) -> ys."""

    @staticmethod
    def forward(ctx: Any, request: Request, plan: Plan, ys: Tensor, *inputs: Tensor) -> Tensor:
        """The states as they are."""
        ctx.request, ctx.plan = request, plan
        ctx.save_for_backward(*inputs)
        return ys.clone()  # not a view, which nobody could change in place

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Hands `grad` to the engine's own gradient; with create_graph=True, through a solve of torchdiffeq instead."""
        if not torch.is_grad_enabled():
            return (None, None, grad, *[None] * (len(ctx.needs_input_grad) - 3))
        # Under other names: y0 may be computed from the parameters, and that way to them is not this operation's.
        inputs = [x.view_as(x) for x in ctx.saved_tensors]
        wanted = [x for x, needed in zip(inputs, ctx.needs_input_grad[3:], strict=True) if needed]
        with uncounted(ctx.plan.counters), _holding(ctx.request, ctx.plan, inputs[1:]) as func:
            ys = _solved(ctx.request, func, inputs[0])
        found = iter(torch.autograd.grad(ys, wanted, grad, create_graph=True, allow_unused=True))
        return (None, None, None, *[next(found) if needed else None for needed in ctx.needs_input_grad[3:]])


def _solved(request: Request, func: Callable[..., Any], y0: Tensor) -> Tensor:
    """The states by torchdiffeq, of a tuple in one vector each."""
    shapes = None if isinstance(request.y0, Tensor) else [part.shape for part in request.y0]
    function = extended.odeint if request.method in extended.METHODS else torchdiffeq.odeint
    ys: Any = function(
        func, y0 if shapes is None else parts_of(y0, shapes), request.t, rtol=request.rtol, atol=request.atol,
        method=request.method, options=request.options,
    )  # fmt: skip
    return ys if shapes is None else joined(ys, len(request.t))


@contextmanager
def _holding(request: Request, plan: Plan, tensors: Sequence[Tensor]) -> Iterator[Callable[..., Any]]:
    """The field, with these in place of the plan's tensors within this block."""
    if plan.reading is None:
        named = dict(zip((name for name, _ in plan.func.named_parameters()), tensors, strict=True))
        yield lambda t, y: functional_call(plan.func, named, (t, y))
    else:
        instead = {id(old): new for old, new in zip(plan.tensors, tensors, strict=True)}
        with plan.reading.holding([instead.get(id(tensor), tensor) for tensor in plan.reading.tensors]):
            yield request.func
