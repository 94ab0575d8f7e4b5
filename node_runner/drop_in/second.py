"""Second derivatives of a served call: by torchdiffeq, which solves again when they are asked for."""

from __future__ import annotations

from typing import Any

import torch
import torchdiffeq
from torch import Tensor, nn

from node_runner.drop_in.decision import Request
from node_runner.engines.extended import functions as extended


def differentiable_twice(request: Request, ys: Tensor) -> Tensor:
    """The states of a served call of `odeint`, whose gradient has a gradient too.

    Engines compute numbers, not a graph of them. With create_graph=True the gradient is therefore that of
    torchdiffeq's own solve of the same call.
    """
    if not ys.requires_grad:
        return ys
    assert isinstance(request.func, nn.Module)
    again: Tensor = _Again.apply(request, ys, request.y0, *request.func.parameters())
    return again


class _Again(torch.autograd.Function):
    """(request, ys, y0, *parameters) -> ys."""

    @staticmethod
    def forward(ctx: Any, request: Request, ys: Tensor, *inputs: Tensor) -> Tensor:
        ctx.request = request
        ctx.save_for_backward(*inputs)
        return ys.clone()  # not a view, which nobody could change in place

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if not torch.is_grad_enabled():
            return (None, grad, *[None] * (len(ctx.needs_input_grad) - 2))
        request: Request = ctx.request
        inputs = ctx.saved_tensors
        wanted = [x for x, needed in zip(inputs, ctx.needs_input_grad[2:], strict=True) if needed]
        function = extended.odeint if request.method in extended.METHODS else torchdiffeq.odeint
        ys = function(
            request.func, inputs[0], request.t, rtol=request.rtol, atol=request.atol, method=request.method,
            options=request.options,
        )  # fmt: skip
        found = iter(torch.autograd.grad(ys, wanted, grad, create_graph=True, allow_unused=True))
        return (None, None, *[next(found) if needed else None for needed in ctx.needs_input_grad[2:]])
