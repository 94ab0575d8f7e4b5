"""An implicit Runge-Kutta method that chooses its steps: for stiff fields."""

from __future__ import annotations

from node_runner.settings import Count, NonNegative, Positive
from node_runner.solvers import SOLVERS
from node_runner.solvers.adaptive import control_options
from node_runner.tableaux import IMPLICIT
from node_runner.types import Method


@SOLVERS.register("radau5", "Radau IIA 5(3), implicit and L-stable, with adaptive steps: first choice for stiff fields")
def radau5(
    name: str,
    /,
    *,
    max_steps: Count = 10_000,
    first_step: Positive | None = None,
    min_step: NonNegative = 0.0,
    max_step: Positive | None = None,
    safety: Positive = 0.9,
    ifactor: Positive = 10.0,
    dfactor: Positive = 0.2,
    max_iters: Count = 10,
) -> Method:
    """Radau IIA of three stages, order 5, with an error estimate of order 3 that chooses the step.

    Its steps are as long as accuracy allows, however stiff the field: where an explicit method of the same tolerance
    takes thousands, it takes tens, each of some 20 evaluations. The stages are solved by Newton's method to rounding,
    with the Jacobian of each sample by itself where samples are independent, and of all numbers together where
    they are not.

    With adjoint=off the gradient is that of the computed numbers, by the implicit function theorem. adjoint=on runs
    the state backward in time, where a fast decay is a fast growth: for stiff fields its gradients are of no use.

    Source: Hairer and Wanner, Solving ODEs II, 2nd ed., section IV.8, whose code RADAU5 it follows.

    Args:
        name: of the method.
        max_steps, first_step, min_step, max_step, safety, ifactor, dfactor: see `adaptive.adaptive`.
        max_iters: Newton iterations of an attempt: where they do not suffice, a step of half the size is tried.
    """
    options = {**control_options(first_step, min_step, max_step, safety, ifactor, dfactor), "max_iters": max_iters}
    return Method(name, 5, adaptive=True, options=options, max_steps=max_steps, implicit=IMPLICIT[name])
