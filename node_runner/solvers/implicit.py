"""Implicit Runge-Kutta methods with fixed steps, for stiff fields: a step solves for its stages.

Names and options are those of torchdiffeq's development version. The nonlinear equations are solved by Newton's
method to rounding (see `node_runner.engines.extended.newton`), whatever the tolerance of the run.
"""

from __future__ import annotations

from node_runner.settings import Count, Interpolation, Positive
from node_runner.solvers import SOLVERS
from node_runner.solvers.fixed import fixed_options
from node_runner.tableaux import IMPLICIT
from node_runner.types import Method


@SOLVERS.register("implicit_euler", "implicit Euler, order 1, L-stable: damps whatever is fast", order=1)
@SOLVERS.register("implicit_midpoint", "implicit midpoint, order 2, A-stable and symplectic", order=2)
@SOLVERS.register("trapezoid", "trapezoidal rule, order 2, A-stable: fast modes ring at long steps", order=2)
@SOLVERS.register("radauIIA3", "Radau IIA of two stages, order 3, L-stable", order=3)
@SOLVERS.register("gl4", "Gauss-Legendre of two stages, order 4, A-stable and symplectic", order=4)
@SOLVERS.register("radauIIA5", "Radau IIA of three stages, order 5, L-stable: for stiff fields", order=5)
@SOLVERS.register("gl6", "Gauss-Legendre of three stages, order 6, A-stable and symplectic", order=6)
@SOLVERS.register("sdirk2", "singly diagonally implicit Runge-Kutta of two stages, order 2, L-stable", order=2)
@SOLVERS.register("trbdf2", "a trapezoidal step, then one of BDF2: order 2, L-stable", order=2)
def implicit(
    name: str,
    /,
    *,
    order: int,
    step_size: Positive | None = None,
    interp: Interpolation = Interpolation.linear,
    perturb: bool = False,
    max_iters: Count = 20,
) -> Method:
    """A fixed-step implicit Runge-Kutta method.

    With adjoint=off the gradient is that of the computed numbers, whatever the field. adjoint=on runs the state
    backward in time, where a fast decay is a fast growth: for stiff fields its gradients are of no use.

    Args:
        name: of the method, by torchdiffeq's table.
        order: of convergence on fields that are not stiff.
        step_size, interp, perturb: see `fixed.fixed`.
        max_iters: Newton iterations in a step, at the most: more, and the solve fails.
    """
    options = {**fixed_options(step_size, interp, perturb), "max_iters": max_iters}
    return Method(name, order, adaptive=False, options=options, max_steps=2**31 - 1, implicit=IMPLICIT[name])
