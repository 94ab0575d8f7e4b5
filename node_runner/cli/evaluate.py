"""`node-run evaluate`: the metrics of a trained run, as it was or with other settings."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from node_runner.cli.explain import shown
from node_runner.cli.found_file import refuse_folder
from node_runner.cli.saved import open_saved
from node_runner.cli.tables import show
from node_runner.errors import ConfigError, SolveFailed, did_you_mean
from node_runner.reporting.console import meaning, number
from node_runner.runs.result import title
from node_runner.runs.run import make_trainer
from node_runner.runs.saved import Saved
from node_runner.training.measuring import measured


SAME = 1e-5
"""Relative difference up to which a metric is as recorded: float32 on another machine does no better."""


def evaluate(run: Path, overrides: Sequence[str], parts: Sequence[str], which: str, save: Path | None) -> None:
    """Measure a run and print the metrics beside those in its result.json.

    Args:
        run: folder of the run.
        overrides: settings to change.
        parts: names of parts (none: all but train).
        which: checkpoint, "best" or "last".
        save: JSON file to write.

    Raises:
        ConfigError: no such run, checkpoint or part.
        SolveFailed: a solve could not be finished.
    """
    refuse_folder("--save", save)
    saved = open_saved(run, overrides, which)
    names, recorded = _choose(saved, parts), saved.recorded if which == "best" else {}
    print(_heading(saved, which), file=sys.stderr)
    metrics = measure(saved, names)
    shared = [name for name, value in metrics.items() if recorded.get(name) is not None and math.isfinite(value)]
    rows = [
        (name, number(value), number(recorded.get(name)), _change(value, recorded.get(name)), meaning(name))
        for name, value in metrics.items()
    ]
    show(("metric", "value", "recorded", "change", "what it is"), rows, numbers=("value", "recorded", "change"))
    moved = [name for name in shared if _difference(metrics[name], recorded[name]) > SAME]
    if not shared:
        print("result.json has no record of these weights")
    elif moved:
        print(f"{len(moved)} of {len(shared)} differ from result.json")
    else:
        print("as recorded in result.json")
    if save is not None:
        content = {"run": str(saved.folder.path), "checkpoint": which, "overrides": list(overrides), "metrics": metrics}
        save.parent.mkdir(parents=True, exist_ok=True)
        save.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        print(f"saved: {shown(save)}", file=sys.stderr)


def _choose(saved: Saved, parts: Sequence[str]) -> list[str]:
    """The names of the parts to measure."""
    known = [name for name, _ in saved.experiment.splits.items()]
    for part in parts:
        if part not in known:
            raise ConfigError(f"--part {part}: no such part; {did_you_mean(part, known)}")
    return list(parts) or [name for name in known if name != "train"]


def measure(saved: Saved, names: Sequence[str]) -> dict[str, float]:
    """Metrics of the named parts, by names such as test/mse.

    Raises:
        SolveFailed: the only part that was asked for could not be solved.
    """

    def failed(name: str, failure: SolveFailed) -> None:
        if len(names) == 1:
            raise failure
        print(f"{name} could not be measured: {failure}", file=sys.stderr)

    trainer = make_trainer(saved.experiment, saved.folder)
    return measured(trainer, {name: saved.experiment.splits[name] for name in names}, failed)


def _heading(saved: Saved, which: str) -> str:
    """What is measured, and the tolerance that is in force for it."""
    experiment = saved.experiment
    words = f"{title(experiment)}; {which} weights, step {saved.step}"
    with experiment.tolerances.evaluation():
        rtol, atol = experiment.tolerances.forward()
    trained_at = (experiment.config.tolerance.rtol, experiment.config.tolerance.atol)
    if experiment.method.has_tolerance and (rtol, atol) != trained_at:
        words += f", measured at tolerance.eval_rtol={rtol:g}, tolerance.eval_atol={atol:g}"
    return words


def _difference(value: float, before: float) -> float:
    return abs(value - before) / max(abs(before), 1e-12)


def _change(value: float, before: float | None) -> str:
    if before is None or not math.isfinite(value):
        return ""
    if _difference(value, before) <= SAME:
        return "same"
    change = 100 * (value - before) / max(abs(before), 1e-12)
    return f"{change:+.0f}%" if abs(change) >= 100 else f"{change:+.2g}%"
