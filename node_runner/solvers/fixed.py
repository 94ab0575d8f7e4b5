"""Explicit methods that take the steps they are told to."""

from __future__ import annotations

from node_runner.settings import Interpolation, Positive
from node_runner.solvers import SOLVERS
from node_runner.solvers.tableaux import FIXED
from node_runner.types import Method


@SOLVERS.register("euler", "Euler, order 1, one evaluation a step", order=1)
@SOLVERS.register("midpoint", "explicit midpoint, order 2, two evaluations a step", order=2)
@SOLVERS.register("heun2", "Heun's method, order 2, two evaluations a step", order=2)
@SOLVERS.register("heun3", "Heun's third-order method, three evaluations a step", order=3)
@SOLVERS.register("rk4", "Runge-Kutta 4, the 3/8 rule, four evaluations a step", order=4)
def fixed(
    name: str,
    /,
    *,
    order: int,
    step_size: Positive | None = None,
    interp: Interpolation = Interpolation.linear,
    perturb: bool = False,
) -> Method:
    """A fixed-step explicit Runge-Kutta method.

    Args:
        name: of the method, by torchdiffeq's table.
        order: of convergence.
        step_size: in units of time (null: one step from each output time to the next).
        interp: how output times between two steps are filled. cubic costs one evaluation more an output.
        perturb: evaluate just after the start and just before the end of each step, for fields
            that jump there.
    """
    options = fixed_options(step_size, interp, perturb)
    return Method(name, order, adaptive=False, options=options, max_steps=2**31 - 1, tableau=FIXED[name])


def fixed_options(step_size: float | None, interp: Interpolation, perturb: bool) -> dict[str, object]:
    """The options that every fixed-step method of torchdiffeq takes."""
    return {"step_size": step_size, "interp": interp.value, "perturb": perturb}
