"""Frobenius norm of the field's Jacobian along the solve."""

from __future__ import annotations

import torch
from torch import Tensor

from node_runner.learning import Integrand
from node_runner.regularisers import REGULARISERS
from node_runner.settings import NonNegative


@REGULARISERS.register("jacobian", "integral of |df/dy|_F^2 / D: fields that change little from place to place")
class Jacobian:
    """Estimate |e^T df/dy|^2 / D of the squared Frobenius norm, integrated; e is normal, fixed for the solve.

    Source: Finlay, Jacobsen, Nurbekyan, Oberman, How to train your neural ODE (2020), equation 7.
    """

    def __init__(self, *, weight: NonNegative = 0.01) -> None:
        self.weight = weight

    def begin(self, y0: Tensor) -> Integrand:
        """The integrand of one solve."""
        noise = torch.randn_like(y0)

        def integrand(t: Tensor, y: Tensor, dy: Tensor) -> Tensor:
            (pulled,) = torch.autograd.grad(dy, y, noise, create_graph=True)
            return pulled.reshape(len(y), -1).pow(2).mean(dim=1)

        return integrand
