"""A higher derivative of the solution along the solve."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from node_runner.learning import Integrand
from node_runner.regularisers import REGULARISERS
from node_runner.settings import Between, NonNegative


@REGULARISERS.register(
    "taylor", "integral of |d^K y/dt^K|^2 / D: solutions that a solver of order K steps along easily"
)
class Taylor:
    """Mean over the state's D numbers of the squared K-th total derivative of the solution, integrated.

    Derivatives come one from the other: d^(k+1) y/dt^(k+1) = (d/dt + f . d/dy) d^k y/dt^k. Each costs two
    backward passes through the one before, so that the cost grows exponentially in K.

    Source: Kelly, Bettencourt, Johnson, Duvenaud, Learning Differential Equations that are Easy to Solve
    (2020); here divided by D.

    Args:
        weight: factor in the loss.
        order: K, of the derivative. 1 would be the kinetic energy.
    """

    def __init__(self, *, weight: NonNegative = 0.01, order: Annotated[int, Between(2, 4)] = 2) -> None:
        self.weight = weight
        self.order = order

    def begin(self, y0: Tensor) -> Integrand:
        """The integrand of one solve."""
        return Derivative(self.order)


class Derivative:
    """|d^K y/dt^K|^2 / D at a point of a solution."""

    differentiates_time = True

    def __init__(self, order: int) -> None:
        self.order = order

    def __call__(self, t: Tensor, y: Tensor, dy: Tensor) -> Tensor:
        """t: (), y and dy: (B, D...) -> (B,)."""
        derivative = dy
        for _ in range(self.order - 1):
            derivative = along_the_solution(derivative, t, y, dy)
        return derivative.reshape(len(y), -1).pow(2).mean(dim=1)


def along_the_solution(value: Tensor, t: Tensor, y: Tensor, dy: Tensor) -> Tensor:
    """d(value)/dt + d(value)/dy dy, (B, D...): the rate at which a function of (t, y) changes along a solution.

    A Jacobian-vector product by two reverse passes: the first is linear in its probe, and is differentiated by it.
    """
    if not value.requires_grad:
        return torch.zeros_like(value)
    inputs = [(x, direction) for x, direction in ((y, dy), (t, torch.ones_like(t))) if x.requires_grad]
    probe = torch.zeros_like(value, requires_grad=True)
    pulled = torch.autograd.grad(value, [x for x, _ in inputs], probe, create_graph=True, allow_unused=True)
    slopes = [(p, d) for p, (_, d) in zip(pulled, inputs, strict=True) if p is not None and p.requires_grad]
    if not slopes:
        return torch.zeros_like(value)
    outputs, directions = zip(*slopes, strict=True)
    (rate,) = torch.autograd.grad(outputs, probe, directions, create_graph=True)
    return rate
