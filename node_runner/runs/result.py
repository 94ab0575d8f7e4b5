"""What a run says of itself: one line before it starts, result.json at its end."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from node_runner import stiffness
from node_runner.assemble import Experiment, count_parameters
from node_runner.config import config_hash
from node_runner.runs import second_solve, trust
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


def title(experiment: Experiment) -> str:
    """One line on what is run, and on what plays no part in it."""
    config, unused = experiment.config, experiment.unused
    size = f"{count_parameters(experiment.model):,} parameters in all"
    solver = config.solver.name
    if experiment.method.has_tolerance:
        solver += f" at rtol {config.tolerance.rtol:g}, atol {config.tolerance.atol:g}"
    words = [
        f"{config.dataset.name} x {config.model.name} ({experiment.task.name})",
        size if "field" in unused else f"field {config.field.name} with {size}",
        *([] if "solver" in unused else [solver]),
        *([] if "adjoint" in unused else [f"adjoint {config.adjoint.name}"]),
        f"{experiment.device.type} {str(experiment.dtype).removeprefix('torch.')}",
        f"seed {config.seed}",
    ]
    return ", ".join(words) + _idle(unused)


def _idle(unused: Sequence[str]) -> str:
    if len(unused) < 2:
        return "".join(f"; {group} plays no part" for group in unused)
    return f"; {', '.join(unused[:-1])} and {unused[-1]} play no part"


def _unused(experiment: Experiment) -> tuple[str, ...]:
    """The groups that play no part: in the model, or in the solver."""
    groups = experiment.unused
    if not experiment.method.has_tolerance and "tolerance" not in groups:
        groups += ("tolerance",)
    return groups


def make_result(experiment: Experiment, trainer: Trainer, ending: Ending) -> dict[str, Any]:
    """The content of result.json."""
    config, state = experiment.config, trainer.state
    unused = _unused(experiment)
    solved = "" if "solver" in unused else f" x {config.solver.name}"
    metrics = {**state.last, **state.best, **ending.tests}
    if "adjoint" not in unused:
        solved += f", adjoint {config.adjoint.name}"
    return {
        "status": ending.status,
        "reason": ending.reason,
        "title": f"{config.dataset.name} x {config.model.name}{solved}",
        "choices": _choices(experiment, unused),
        "unused": list(unused),
        "metrics": metrics,
        "truth": _truth(experiment, state.best),
        "best_step": state.best_step,
        "totals": _totals(trainer),
        "advice": _advice(experiment, metrics),
        "parameters": count_parameters(experiment.model),
        "memory_source": None if trainer.memory is None else trainer.memory.source,
        "config_hash": config_hash(config),
        "command": " ".join(sys.argv),
    }


def _advice(experiment: Experiment, metrics: Mapping[str, float]) -> list[str]:
    """Sentences on what could be done better."""
    method = experiment.method
    found = [
        stiffness.advice(method, metrics.get("solver/stiffness"), metrics.get("solver/accepted")),
        second_solve.advice(experiment.config.adjoint.name, metrics.get("nfe/forward"), metrics.get("nfe/backward")),
        trust.advice(metrics, adaptive=method.adaptive),
    ]
    return [sentence for sentence in found if sentence is not None]


def _truth(experiment: Experiment, measured: Mapping[str, float]) -> dict[str, float]:
    """True values of the parameters that were found."""
    equation = experiment.spec.equation
    truth = {} if equation is None else equation.truth
    return {name: value for name, value in truth.items() if f"val/{name}" in measured}


def _choices(experiment: Experiment, unused: Collection[str]) -> dict[str, Any]:
    """What tells this run from others, None where a group is not used."""
    config = experiment.config
    choices = {
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
    group = {"rtol": "tolerance", "atol": "tolerance"}
    return {name: None if group.get(name, name) in unused else value for name, value in choices.items()}


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
