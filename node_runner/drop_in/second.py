"""Second derivatives of a served call: by torchdiffeq, which solves again when they are asked for."""

from __future__ import annotations

from typing import Any

import torch
import torchdiffeq
from torch import Tensor, nn
from torch.func import functional_call

from node_runner.drop_in.counting import Counter, uncounted
from node_runner.drop_in.decision import Request
from node_runner.engines.extended import functions as extended


def differentiable_twice(request: Request, ys: Tensor, counters: tuple[Counter, ...] = ()) -> Tensor:
    """The states of a served call of `odeint`, whose gradient has a gradient too.

    Engines compute numbers, not a graph of them. With create_graph=True the gradient is therefore that of
    torchdiffeq's own solve of the same call, which is not counted: torchdiffeq would not have solved again.
    """
    if not ys.requires_grad:
        return ys
    assert isinstance(request.func, nn.Module)
    again: Tensor = _Again.apply(request, counters, ys, request.y0, *request.func.parameters())
    return again


class _Again(torch.autograd.Function):
    """(request, counters, ys, y0, *parameters) -> ys."""

    @staticmethod
    def forward(ctx: Any, request: Request, counters: tuple[Counter, ...], ys: Tensor, *inputs: Tensor) -> Tensor:
        """The states as they are."""
        ctx.request, ctx.counters = request, counters
        ctx.save_for_backward(*inputs)
        return ys.clone()  # not a view, which nobody could change in place

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Hands `grad` to the engine's own gradient; with create_graph=True, through a solve of torchdiffeq instead."""
        if not torch.is_grad_enabled():
            return (None, None, grad, *[None] * (len(ctx.needs_input_grad) - 3))
        request: Request = ctx.request
        func = request.func
        assert isinstance(func, nn.Module)
        # Under other names: y0 may be computed from the parameters, and that way to them is not this operation's.
        inputs = [x.view_as(x) for x in ctx.saved_tensors]
        wanted = [x for x, needed in zip(inputs, ctx.needs_input_grad[3:], strict=True) if needed]
        named = dict(zip((name for name, _ in func.named_parameters()), inputs[1:], strict=True))
        function = extended.odeint if request.method in extended.METHODS else torchdiffeq.odeint
        with uncounted(ctx.counters):
            ys = function(
                lambda t, y: functional_call(func, named, (t, y)), inputs[0], request.t, rtol=request.rtol,
                atol=request.atol, method=request.method, options=request.options,
            )  # fmt: skip
        found = iter(torch.autograd.grad(ys, wanted, grad, create_graph=True, allow_unused=True))
        return (None, None, None, *[next(found) if needed else None for needed in ctx.needs_input_grad[3:]])
