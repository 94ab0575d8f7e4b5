"""The solve of a run, made accurate: what it learned is measured with it once more."""

from __future__ import annotations

import torch

from node_runner.adjoints import ADJOINTS
from node_runner.assemble import Experiment
from node_runner.engines import ENGINES
from node_runner.settings import ToleranceConfig
from node_runner.solvers import SOLVERS
from node_runner.solving import Solve, Tolerances


TIGHTER = 100.0
"""The tolerance is divided by this."""

FLOOR = {torch.float32: (1e-6, 1e-7), torch.float64: (1e-11, 1e-12)}
"""(rtol, atol) beyond which rounding is all that a smaller error estimate measures."""


def accurate_solve(experiment: Experiment) -> Solve | None:
    """The solve of a run at a hundredth of its evaluation tolerance, or by dopri5 where its steps are fixed.

    None where the model solves nothing, where noise drives the equation, and where the precision leaves no room.
    """
    method = experiment.method
    if "solver" in experiment.unused or method.calculus is not None:
        return None
    with experiment.tolerances.evaluation():
        own = experiment.tolerances.forward()
    rtol, atol = (
        max(value / TIGHTER, min(value, least)) for value, least in zip(own, FLOOR[experiment.dtype], strict=True)
    )
    tolerances = Tolerances(ToleranceConfig(rtol=rtol, atol=atol))
    if not method.adaptive:
        dopri5 = SOLVERS.build(SOLVERS.schema("dopri5")(), "dopri5")
        return Solve(ENGINES.get("torchdiffeq")(), dopri5, ADJOINTS.get("off")(), tolerances)
    if rtol > own[0] / 10:
        return None
    return Solve(experiment.solve.engine, method, experiment.solve.adjoint, tolerances)
