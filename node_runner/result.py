"""What a run says of itself: one line before it starts, result.json at its end."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from node_runner.assemble import Experiment, count_parameters
from node_runner.config import RunConfig, config_hash
from node_runner.training.loop import Trainer


@dataclass
class Ending:
    """How a run ended.

    Attributes:
        status: completed, failed, diverged or interrupted.
        reason: why.
        tests: metrics of the test parts.
        figures: names of those that were drawn.
        error: to be raised once the result is written.
    """

    status: str
    reason: str
    tests: dict[str, float] = field(default_factory=dict)
    figures: list[str] = field(default_factory=list)
    error: Exception | None = None


def title(config: RunConfig, experiment: Experiment) -> str:
    """One line on what is run."""
    solver = config.solver.name
    if experiment.method.adaptive:
        solver += f" at rtol {config.tolerance.rtol:g}, atol {config.tolerance.atol:g}"
    return (
        f"{config.dataset.name} x {config.model.name} ({experiment.task.name}), field {config.field.name} with "
        f"{count_parameters(experiment.model):,} parameters in all, {solver}, adjoint {config.adjoint.name}, "
        f"{experiment.device.type} {str(experiment.dtype).removeprefix('torch.')}, seed {config.seed}"
    )


def make_result(experiment: Experiment, trainer: Trainer, ending: Ending) -> dict[str, Any]:
    """The content of result.json."""
    config, state = experiment.config, trainer.state
    return {
        "status": ending.status,
        "reason": ending.reason,
        "title": f"{config.dataset.name} x {config.model.name} x {config.solver.name}, adjoint {config.adjoint.name}",
        "choices": _choices(experiment),
        "metrics": {**state.last, **state.best, **ending.tests},
        "truth": _truth(experiment, state.best),
        "best_step": state.best_step,
        "totals": _totals(trainer),
        "parameters": count_parameters(experiment.model),
        "memory_source": trainer.memory.source if hasattr(trainer, "memory") else None,
        "config_hash": config_hash(config),
        "command": " ".join(sys.argv),
    }


def _truth(experiment: Experiment, measured: Mapping[str, float]) -> dict[str, float]:
    """True values of the parameters that were found."""
    equation = experiment.spec.equation
    truth = {} if equation is None else equation.truth
    return {name: value for name, value in truth.items() if f"val/{name}" in measured}


def _choices(experiment: Experiment) -> dict[str, Any]:
    """What tells this run from others."""
    config = experiment.config
    return {
        "dataset": config.dataset.name,
        "model": config.model.name,
        "field": config.field.name,
        "solver": config.solver.name,
        "rtol": config.tolerance.rtol,
        "atol": config.tolerance.atol,
        "adjoint": config.adjoint.name,
        "engine": experiment.solve.served_by or config.engine.name,
        "device": str(experiment.device),
        "seed": config.seed,
    }


def _totals(trainer: Trainer) -> dict[str, float]:
    """Sums over the whole run, with the steps that no line of metrics has booked yet."""
    state, unbooked = trainer.state, trainer.meter.solver_sums()
    return {
        "seconds": state.totals["seconds"],
        "seconds_total": state.totals["seconds_total"],
        "steps": state.step,
        "epochs": state.step / trainer.steps_per_epoch,
        "nfe_forward": state.totals["nfe_forward"] + unbooked.get("nfe/forward", 0.0),
        "nfe_backward": state.totals["nfe_backward"] + unbooked.get("nfe/backward", 0.0),
    }
