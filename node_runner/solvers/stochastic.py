"""Methods for stochastic differential equations."""

from __future__ import annotations

from node_runner.settings import Calculus, Positive
from node_runner.solvers import SOLVERS
from node_runner.types import Method


@SOLVERS.register("euler_maruyama", "Euler-Maruyama for stochastic equations, strong order 1/2, the cheapest step",
                  order=1, calculus=Calculus.ito)  # fmt: skip
@SOLVERS.register("milstein", "Milstein for stochastic equations, strong order 1, with the diffusion's derivative",
                  order=1, calculus=Calculus.ito)  # fmt: skip
@SOLVERS.register("srk", "stochastic Runge-Kutta of strong order 3/2 (Rößler 2010), many evaluations a step",
                  order=2, calculus=Calculus.ito)  # fmt: skip
@SOLVERS.register("reversible_heun", "reversible Heun for stochastic equations: adjoint=on gives its exact gradient",
                  order=2, calculus=Calculus.stratonovich)  # fmt: skip
def stochastic(name: str, /, *, order: int, calculus: Calculus, step_size: Positive | None = None) -> Method:
    """A method of torchsde with fixed steps, for diagonal noise.

    Source: Kloeden, Platen, Numerical Solution of Stochastic Differential Equations (1992), sections 10.2 and 10.3;
    Rößler, Runge-Kutta methods for the strong approximation of solutions of stochastic differential equations (2010);
    Kidger, Foster, Li, Lyons, Efficient and accurate gradients for neural SDEs (2021).

    Args:
        name: of the method.
        order: for the equation without its noise.
        calculus: the sense in which the method means its drift. Models give Ito's, and are translated.
        step_size: longest step in units of time (null: one step from each output time to the next).
    """
    return Method(name, order, adaptive=False, options={"step_size": step_size}, max_steps=2**31 - 1, calculus=calculus)
