"""How good a run is and what it cost, read from the files that it left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from node_runner.reporting.run_folder import RunFolder
from node_runner.runs.trust import Apart, apart


QUALITY = ("accuracy", "bits_per_dim", "nll", "relative_rmse", "mse")
"""Metrics that say how good a model is. The first that a run has is the one to compare."""

BESIDE = ("energy_drift", "heat_drift", "parameter_error", "event_time_error")
"""Metrics that are shown beside it, for the tests that have them."""

HIGHER = ("accuracy",)
"""Metrics of which more is better."""


@dataclass
class Measures:
    """One run in figures.

    Attributes:
        status: completed, failed, diverged, interrupted; "no result" while it runs or where it was killed.
        reason: why it ended.
        steps: optimiser steps taken.
        quality: val/loss and the metric to compare of every test part, by name.
        costs: evaluations per step, memory, time, by column.
        unused: groups of the configuration that play no part in the model.
        parameters: of an equation, as they were found, by name; the nearer to the truth the better.
        apart: what an accurate solve makes of the run, where that is not what its own solver does.
    """

    status: str
    reason: str
    steps: int
    quality: dict[str, float] = field(default_factory=dict)
    costs: dict[str, float] = field(default_factory=dict)
    unused: Sequence[str] = ()
    parameters: dict[str, float] = field(default_factory=dict)
    apart: Apart | None = None


def measure(folder: RunFolder) -> Measures:
    """Read a run's figures, also of one that has not ended."""
    if not folder.result.is_file():
        return _unfinished(folder)
    result = folder.read_result()
    metrics, totals = result["metrics"], result["totals"]
    steps = totals["steps"]
    costs = {"saved_mb": metrics.get("memory/saved_mb"), "peak_mb": metrics.get("memory/peak_mb")}
    # A run that completed without an evaluation has trained without a solve; another has not been booked.
    if steps and (totals["nfe_forward"] or result["status"] == "completed"):
        costs |= {
            "nfe_forward": totals["nfe_forward"] / steps,
            "nfe_backward": totals["nfe_backward"] / steps,
            "ms_step": 1000 * totals["seconds"] / steps or None,
        }
    costs["seconds"] = totals["seconds_total"] or None
    parameters = _given({name: metrics.get(f"val/{name}") for name in result.get("truth", {})})
    return Measures(
        result["status"],
        result["reason"],
        steps,
        _quality(metrics),
        _given(costs),
        result.get("unused", ()),
        parameters,
        apart(metrics),
    )


def quality_names(runs: list[Measures]) -> list[str]:
    """The quality columns of several runs: val/loss, then test, then further test parts."""
    names = dict.fromkeys(name for run in runs for name in run.quality)
    return sorted(names, key=lambda name: (name != "val/loss", not name.startswith("test/"), name))


def _quality(metrics: dict[str, Any]) -> dict[str, float]:
    found = {"val/loss": metrics.get("val/loss")}
    parts = dict.fromkeys(name.split("/")[0] for name in metrics if name.startswith(("test", "val_")) and "/" in name)
    for part in parts:
        metric = next((name for name in QUALITY if f"{part}/{name}" in metrics), "loss")
        found |= {f"{part}/{name}": metrics.get(f"{part}/{name}") for name in (metric, *BESIDE)}
    return _given(found)


def _unfinished(folder: RunFolder) -> Measures:
    lines = list(folder.read_metrics())
    latest: dict[str, float] = {}
    for line in lines:
        latest |= line
    losses = [line["val/loss"] for line in lines if line.get("val/loss") is not None]
    costs = {
        "nfe_forward": latest.get("nfe/forward"),
        "nfe_backward": latest.get("nfe/backward"),
        "saved_mb": latest.get("memory/saved_mb"),
        "peak_mb": latest.get("memory/peak_mb"),
        "ms_step": latest.get("time/step_ms"),
    }
    quality = {"val/loss": min(losses)} if losses else {}
    reason = f"still running or killed; if killed, `node-run resume {folder.path}` goes on"
    return Measures("no result", reason, int(latest.get("step", 0)), quality, _given(costs))


def _given(values: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}
