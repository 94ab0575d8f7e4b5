"""Explicit Runge-Kutta pairs that estimate their error and choose their step.

Step control is torchdiffeq's, and so are the coefficients, but for those of tsit5; its `rk_common.py` has the
controller, which is Hairer, Norsett and Wanner, Solving ODEs I, 2nd ed., section II.4.
"""

from __future__ import annotations

from typing import Any

from node_runner.errors import ConfigError
from node_runner.settings import Batching, Count, NonNegative, Positive
from node_runner.solvers import SOLVERS
from node_runner.solvers.tableaux import adaptive_tableau
from node_runner.types import Method


@SOLVERS.register("dopri5", "Dormand-Prince 5(4): six new evaluations a step, the default choice", order=5)
@SOLVERS.register("tsit5", "Tsitouras 5(4): six new evaluations a step, a smaller error than dopri5's", order=5)
@SOLVERS.register("dopri8", "Dormand-Prince 8(7): for tight tolerances and smooth fields", order=8)
@SOLVERS.register("bosh3", "Bogacki-Shampine 3(2): cheap at loose tolerances", order=3)
@SOLVERS.register("fehlberg2", "Runge-Kutta-Fehlberg 2(1): for very loose tolerances", order=2)
@SOLVERS.register("adaptive_heun", "Heun 2(1) with an error estimate", order=2)
def adaptive(
    name: str,
    /,
    *,
    order: int,
    max_steps: Count = 10_000,
    first_step: Positive | None = None,
    min_step: NonNegative = 0.0,
    max_step: Positive | None = None,
    safety: Positive = 0.9,
    ifactor: Positive = 10.0,
    dfactor: Positive = 0.2,
    batching: Batching = Batching.shared,
) -> Method:
    """An adaptive explicit Runge-Kutta method.

    Args:
        name: of the method, by torchdiffeq's table.
        order: of convergence.
        max_steps: attempts (accepted and rejected) that one solve may take before it fails.
        first_step: size of the first attempt (null: Hairer's estimate, one more evaluation).
        min_step: steps of this size are accepted whatever their error (0: none is).
        max_step: largest step (null: no limit).
        safety: factor on the step that the error estimate suggests.
        ifactor, dfactor: most that a step may grow, and shrink, from one attempt to the next.
        batching: shared gives a batch one step size, from the error over all its samples. per_sample gives each
            sample its own, from its own error, so that its result does not depend on its neighbours.
    """
    options = control_options(first_step, min_step, max_step, safety, ifactor, dfactor)
    tableau = adaptive_tableau(name)
    return Method(name, order, adaptive=True, options=options, max_steps=max_steps, tableau=tableau, batching=batching)


def control_options(
    first_step: float | None, min_step: float, max_step: float | None, safety: float, ifactor: float, dfactor: float
) -> dict[str, Any]:
    """The options of the step control, by torchdiffeq's names.

    Raises:
        ConfigError: the longest step is shorter than the shortest.
    """
    if max_step is not None and max_step < min_step:
        raise ConfigError(f"solver.max_step: expected at least solver.min_step={min_step:g}, got {max_step:g}")
    return {
        "first_step": first_step,
        "min_step": min_step,
        "max_step": float("inf") if max_step is None else max_step,
        "safety": safety,
        "ifactor": ifactor,
        "dfactor": dfactor,
    }
