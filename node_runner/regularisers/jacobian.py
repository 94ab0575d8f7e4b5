"""Frobenius norm of the field's Jacobian along the solve."""

from __future__ import annotations

import torch
from torch import Tensor

from node_runner.forms import Integral
from node_runner.learning import Integrand
from node_runner.regularisers import REGULARISERS
from node_runner.settings import NonNegative, Trace


EXACT_UP_TO = 4
"""Dimensions up to which `trace=auto` is exact, as that of a flow."""


@REGULARISERS.register("jacobian", "integral of |df/dy|_F^2 / D: fields that change little from place to place")
class Jacobian:
    """The squared Frobenius norm tr(J^T J) / D, integrated.

    trace=hutchinson estimates it by |e^T df/dy|^2 / D, where e is normal and fixed for the solve.

    Source: Finlay, Jacobsen, Nurbekyan, Oberman, How to train your neural ODE (2020).

    Args:
        weight: factor in the loss.
        trace: how the norm is computed; auto is exact for small states.
    """

    def __init__(self, *, weight: NonNegative = 0.01, trace: Trace = Trace.auto) -> None:
        self.weight = weight
        self.trace = trace

    def begin(self, y0: Tensor) -> Integrand:
        """The integrand of one solve."""
        few = y0[:1].numel() <= EXACT_UP_TO
        return Norm() if self.trace is Trace.exact or (self.trace is Trace.auto and few) else Estimate(y0)


class Norm:
    """|df/dy|_F^2 / D at a point of a solution, by one vector-Jacobian product a dimension."""

    integral = Integral.jacobian

    def __call__(self, t: Tensor, y: Tensor, dy: Tensor) -> Tensor:
        """t: (), y and dy: (B, D...) -> (B,)."""
        flat = dy.reshape(len(dy), -1)
        total = flat.new_zeros(len(flat))
        for i in range(flat.shape[1]):
            (row,) = torch.autograd.grad(flat[:, i].sum(), y, create_graph=True)
            total = total + row.reshape(len(row), -1).pow(2).mean(dim=1)
        return total


class Estimate:
    """Its estimate from one probe, drawn for states like y0 (B, D...)."""

    def __init__(self, y0: Tensor) -> None:
        self.noise = torch.randn_like(y0)

    def __call__(self, t: Tensor, y: Tensor, dy: Tensor) -> Tensor:
        """t: (), y and dy: (B, D...) -> (B,)."""
        (pulled,) = torch.autograd.grad(dy, y, self.noise, create_graph=True)
        return pulled.reshape(len(y), -1).pow(2).mean(dim=1)
