"""Adams multi-step methods: history replaces evaluations. Fixed steps, started by rk4.

As torchdiffeq 0.2.5 has them; its corrector is a functional iteration.
"""

from __future__ import annotations

from typing import Annotated

from node_runner.settings import Between, Count, Interpolation, Positive
from node_runner.solvers import SOLVERS
from node_runner.solvers.fixed import fixed_options
from node_runner.types import Method


@SOLVERS.register("explicit_adams", "Adams-Bashforth, order 4 unless told otherwise: one evaluation a step")
def explicit_adams(
    name: str,
    /,
    *,
    step_size: Positive | None = None,
    interp: Interpolation = Interpolation.linear,
    perturb: bool = False,
    max_order: Annotated[int, Between(4, 12)] = 5,
) -> Method:
    """Adams-Bashforth. The higher its order, the shorter the steps at which it is stable.

    torchdiffeq's own default, max_order=12, is order 11, which is not stable at 100 steps along a
    trajectory of this package's data sets: the error grows without bound.

    Args:
        name: of the method, by torchdiffeq's table.
        step_size, interp, perturb: see `fixed.fixed`.
        max_order: one more than the steps of history, which are the order of the method.
    """
    options = {**fixed_options(step_size, interp, perturb), "max_order": max_order}
    return Method(name, None, adaptive=False, options=options, max_steps=2**31 - 1)


@SOLVERS.register("implicit_adams", "Adams-Bashforth-Moulton to order 12: predict, then iterate the corrector")
@SOLVERS.register("fixed_adams", "the older name of implicit_adams")
def implicit_adams(
    name: str,
    /,
    *,
    step_size: Positive | None = None,
    interp: Interpolation = Interpolation.linear,
    perturb: bool = False,
    max_order: Annotated[int, Between(4, 12)] = 12,
    max_iters: Count = 4,
) -> Method:
    """Adams-Bashforth-Moulton; the tolerance decides when the corrector has converged.

    Args:
        name: of the method, by torchdiffeq's table.
        step_size, interp, perturb: see `fixed.fixed`.
        max_order: order of the method, with one step of history less, at the most.
        max_iters: corrector iterations in a step, at the most.
    """
    options = {**fixed_options(step_size, interp, perturb), "max_order": max_order, "max_iters": max_iters}
    return Method(name, None, adaptive=False, options=options, max_steps=2**31 - 1, corrects=True)
