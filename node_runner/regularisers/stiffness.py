"""How stiff the field is along the solve, as the solver's stages tell it."""

from __future__ import annotations

from torch import Tensor

from node_runner.errors import ConfigError
from node_runner.regularisers import REGULARISERS
from node_runner.settings import NonNegative
from node_runner.types import Method, Step


@REGULARISERS.register("stiffness", "sum over the steps of an estimate of the largest eigenvalue: fields not stiff")
class Stiffness:
    """Sum over the accepted steps of |k_s - k_(s-1)| / |g_s - g_(s-1)|, g_i being the state at which k_i is evaluated.

    The last two stages of dopri5, tsit5 and dopri8 are evaluated at the same time, so that the quotient estimates the
    largest |eigenvalue| of df/dy that the step meets. Differentiated through the solver's own stages, with step sizes
    as constants, at no further evaluation: it needs adjoint=off.

    Source: Shampine, Stiffness and nonstiff differential equation solvers, II (1977); as a regulariser Pal, Ma, Shah,
    Rackauckas, Opening the Blackbox (2021).

    Args:
        weight: factor in the loss.
    """

    def __init__(self, *, weight: NonNegative = 0.01) -> None:
        self.weight = weight

    def check(self, method: Method) -> None:
        """Methods whose last two stages have the same time.

        Raises:
            ConfigError: the method has no two such stages.
        """
        if method.tableau is None or method.tableau.c[-2:] != (1.0, 1.0):
            raise ConfigError(f"regulariser=stiffness compares two stages at the end of a step, and solver="
                              f"{method.name} has no two there: use solver=dopri5 or tsit5")  # fmt: skip

    def of_step(self, step: Step) -> Tensor:
        """The estimate, (B,)."""
        one, other = step.tableau.a[-1], step.tableau.a[-2]
        apart = step.sum([a - b for a, b in zip(one, other, strict=True)])
        change = step.slopes[-1] - step.slopes[-2]
        # The states of a field at rest are not apart: the smallest number keeps the quotient 0 there.
        return (square(change) / (square(apart) + 1e-30) + 1e-30).sqrt()


def square(x: Tensor) -> Tensor:
    """Sum of squares of each sample, (B, D...) -> (B,)."""
    return x.reshape(len(x), -1).pow(2).sum(dim=1)
