"""adjoint=off: autograd differentiates the solver's own arithmetic."""

from __future__ import annotations

from node_runner.adjoints import ADJOINTS
from node_runner.types import Integrate, Method


@ADJOINTS.register("off", "backpropagate through the solver: exact discrete gradient, memory grows with the steps")
class Off:
    """Discretise, then optimise.

    The gradient is that of the computed numbers. Every intermediate state stays in memory until
    backward, and no further evaluation of the field is needed.
    """

    name = "off"

    def __init__(self) -> None:
        pass

    def unsupported(self, method: Method) -> str | None:
        """Only methods whose arithmetic autograd sees."""
        if method.differentiable:
            return None
        return f"adjoint=off cannot differentiate solver={method.name}, which runs outside PyTorch; use adjoint=on"

    def wrap(self, forward: Integrate, backward: Integrate) -> Integrate:
        """The forward solve as it is."""
        del backward
        return forward
