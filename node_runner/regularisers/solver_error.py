"""The error that the solver estimates of its own steps."""

from __future__ import annotations

from torch import Tensor

from node_runner.errors import ConfigError
from node_runner.regularisers import REGULARISERS
from node_runner.settings import NonNegative
from node_runner.types import Method, Step


@REGULARISERS.register("solver_error", "sum of h |error estimate| over the steps: paths that the solver finds easy")
class SolverError:
    """Sum over the accepted steps of h times the error that the embedded method estimates, RMS over the state's D.

    Differentiated through the solver's own stages, with step sizes as constants, at no further evaluation: it needs
    adjoint=off and a method that estimates its error. As large as the tolerance lets it be, so that its weight is
    large.

    Source: Pal, Ma, Shah, Rackauckas, Opening the Blackbox: Accelerating Neural Differential Equations by
    Regularizing Internal Solver Heuristics (2021).

    Args:
        weight: factor in the loss.
    """

    def __init__(self, *, weight: NonNegative = 100.0) -> None:
        self.weight = weight

    def check(self, method: Method) -> None:
        """Methods that estimate their error.

        Raises:
            ConfigError: the method does not.
        """
        if method.tableau is None or not method.tableau.error:
            raise ConfigError(f"regulariser=solver_error needs an error estimate, and solver={method.name} has none: "
                              "use solver=dopri5")  # fmt: skip

    def of_step(self, step: Step) -> Tensor:
        """H |error|, (B,)."""
        return step.h.to(step.y.dtype) * rms(step.sum(step.tableau.error))


def rms(x: Tensor) -> Tensor:
    """Root mean square of each sample, (B, D...) -> (B,), differentiable at zero."""
    return (x.reshape(len(x), -1).pow(2).mean(dim=1) + 1e-30).sqrt()
