"""Is what was learned an equation, or the steps of one solver? The model is measured once more, solved accurately.

A field that was trained through coarse steps can be right for these steps alone: Queiruga, Erichson, Taylor, Mahoney,
Continuous-in-Depth Neural Networks, 2020; Ott, Katiyar, Hennig, Tiemann, ResNet After All, 2021.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from node_runner.adjoints import ADJOINTS
from node_runner.assemble import Experiment
from node_runner.engines import ENGINES
from node_runner.models import MODELS
from node_runner.models.unused import unused_by
from node_runner.settings import ToleranceConfig
from node_runner.solvers import SOLVERS
from node_runner.solving import Solve, Tolerances


PART = "val_tight"
"""What metrics of the validation part are called when they are measured so."""

TIGHTER = 100.0
"""The tolerance is divided by this."""

FLOOR = {torch.float32: (1e-6, 1e-7), torch.float64: (1e-11, 1e-12)}
"""(rtol, atol) beyond which rounding is all that a smaller error estimate measures."""

APART = {"accuracy": 0.02, "bits_per_dim": 0.02, "nll": 0.02}
"""Differences of a metric that matter; the first that a run has is looked at."""

SHARE = 0.2
"""The same for errors, as a share of them."""


def accurate_solve(experiment: Experiment) -> Solve | None:
    """The solve of a run at a hundredth of its evaluation tolerance, or by dopri5 where its steps are fixed.

    None where the model solves nothing, where noise drives the equation, and where the precision leaves no room.
    """
    config, method = experiment.config, experiment.method
    if "solver" in unused_by(MODELS.get(config.model.name)) or method.calculus is not None:
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


def advice(metrics: Mapping[str, float], *, adaptive: bool) -> str | None:
    """What to do about a model that is another when it is solved accurately, or None.

    Args:
        metrics: of the run, with those of the part `val_tight`.
        adaptive: whether its solver chooses its steps.
    """
    for name in (*APART, "relative_rmse", "loss"):
        own, accurate = metrics.get(f"val/{name}"), metrics.get(f"{PART}/{name}")
        if own is None or accurate is None:
            continue
        if abs(accurate - own) <= APART.get(name, SHARE * abs(own)):
            return None
        remedy = "a smaller tolerance.rtol" if adaptive else "a smaller solver.step_size, or a solver of higher order,"
        return (
            f"val/{name} is {own:.4g}, and {accurate:.4g} solved accurately: what was learned are the steps of this "
            f"solver as much as an equation; {remedy} in training gives a field that holds for every solver"
        )
    return None
