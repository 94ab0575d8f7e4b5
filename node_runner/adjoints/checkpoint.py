"""adjoint=checkpoint: the exact discrete gradient from the accepted states alone."""

from __future__ import annotations

from torch import Tensor

from node_runner.adjoints import ADJOINTS
from node_runner.errors import ConfigError
from node_runner.types import Dynamics, Integrate, Method, Norm, Solution


@ADJOINTS.register("checkpoint", "gradient of the computed numbers, from accepted states alone: a step's stages are "
                                 "computed again")  # fmt: skip
class Checkpoint:
    """Discretise, then optimise, in little memory.

    The gradient is that of adjoint=off. What is kept is the state at each accepted step (Griewank and
    Walther, Evaluating Derivatives, 2nd ed., chapter 12, with every step a checkpoint); the gradient
    evaluates each step's stages once more. Engines that take the steps themselves can do so.
    """

    name = "checkpoint"

    def __init__(self) -> None:
        pass

    def unsupported(self, method: Method) -> str | None:
        """Explicit Runge-Kutta methods, whose steps an engine of ours can take."""
        if method.tableau is None:
            return (
                f"adjoint=checkpoint needs an explicit Runge-Kutta method, and solver={method.name} is none: "
                "use adjoint=on"
            )
        return None

    def wrap(self, forward: Integrate, backward: Integrate) -> Integrate:
        """Refused: the accepted states are the engine's, so that one which lacks this gradient cannot be given it."""

        def integrate(f: Dynamics, y0: Tensor, ts: Tensor, *, norm: Norm | None = None) -> Solution:
            raise ConfigError("adjoint=checkpoint: this engine does not keep its accepted states; use adjoint=off")

        return integrate
