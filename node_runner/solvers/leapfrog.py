"""The leapfrog method, for states [q, p] of positions and momenta."""

from __future__ import annotations

from node_runner.settings import Interpolation, Positive
from node_runner.solvers import SOLVERS
from node_runner.solvers.fixed import fixed_options
from node_runner.types import Method


@SOLVERS.register("leapfrog", "leapfrog (Störmer-Verlet), order 2, symplectic for states [q, p]: energy stays bounded")
def leapfrog(
    name: str,
    /,
    *,
    step_size: Positive | None = None,
    interp: Interpolation = Interpolation.linear,
    perturb: bool = False,
) -> Method:
    """Kick, drift, kick: explicit, with fixed steps, three evaluations of the whole field a step.

    Symplectic where dq/dt depends on p alone and dp/dt on q alone, as with model=hamiltonian model.separable=true and
    with model=second_order without friction; of order 2 for every field. An odd state has no halves and is refused.

    Source: Hairer, Lubich, Wanner, Geometric Numerical Integration, 2nd ed., section I.1.4.

    Args:
        name: of the method.
        step_size, interp, perturb: see `fixed.fixed`.
    """
    return Method(
        name, 2, adaptive=False, options=fixed_options(step_size, interp, perturb), max_steps=2**31 - 1, halves=True
    )
