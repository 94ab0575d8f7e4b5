"""SciPy's integrators, LSODA and the implicit ones among them. Autograd cannot see through them."""

from __future__ import annotations

from node_runner.settings import Count, NonNegative, Positive, ScipySolver
from node_runner.solvers import SOLVERS
from node_runner.types import Method


@SOLVERS.register("scipy_solver", "scipy.integrate.solve_ivp, stiff methods too; trains with adjoint=on only")
def scipy_solver(
    name: str,
    /,
    *,
    solver: ScipySolver = ScipySolver.LSODA,
    max_evaluations: Count = 1_000_000,
    min_step: NonNegative = 0.0,
    max_step: Positive | None = None,
) -> Method:
    """A solve in NumPy on the CPU.

    Args:
        name: of the method, by torchdiffeq's table.
        solver: which of SciPy's.
        max_evaluations: evaluations of the field that one solve may take before it fails (SciPy
            does not report its steps while it runs).
        min_step: smallest step (LSODA only).
        max_step: largest step (null: no limit).
    """
    options = {
        "solver": solver.value,
        "min_step": min_step,
        "max_step": float("inf") if max_step is None else max_step,
    }
    return Method(name, None, adaptive=True, options=options, max_steps=max_evaluations, differentiable=False)
