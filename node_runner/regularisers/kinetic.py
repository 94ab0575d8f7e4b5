"""Kinetic energy along the solve."""

from __future__ import annotations

from torch import Tensor

from node_runner.forms import Integral
from node_runner.learning import Integrand
from node_runner.regularisers import REGULARISERS
from node_runner.settings import NonNegative


@REGULARISERS.register("kinetic", "integral of |f|^2 / D: straight, slow paths, which cost fewer evaluations")
class Kinetic:
    """Mean over the state's D numbers of f^2, integrated.

    Source: Finlay, Jacobsen, Nurbekyan, Oberman, How to train your neural ODE (2020).

    Args:
        weight: factor in the loss.
    """

    def __init__(self, *, weight: NonNegative = 0.01) -> None:
        self.weight = weight

    def begin(self, y0: Tensor) -> Integrand:
        """The integrand of one solve."""
        return Energy()


class Energy:
    """|f|^2 / D at a point of a solution."""

    integral = Integral.kinetic

    def __call__(self, t: Tensor, y: Tensor, dy: Tensor) -> Tensor:
        """t: (), y and dy: (B, D...) -> (B,)."""
        return dy.reshape(len(dy), -1).pow(2).mean(dim=1)
