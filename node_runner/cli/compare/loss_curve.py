"""The validation loss of a run by what it had cost until then."""

from __future__ import annotations

from typing import NamedTuple

from node_runner.reporting.run_folder import RunFolder


class Validated(NamedTuple):
    """A validation: optimiser steps, evaluations of the field both ways, seconds of training; val/loss then."""

    steps: float
    evaluations: float
    seconds: float
    loss: float


def loss_curve(folder: RunFolder) -> list[Validated]:
    """Every validation of a run; its cost is summed from the lines of metrics."""
    curve: list[Validated] = []
    step, seconds, evaluations = 0, 0.0, 0.0
    for line in folder.read_metrics():
        if "time/step_ms" in line:
            taken = line["step"] - step
            step = int(line["step"])
            seconds += taken * line["time/step_ms"] / 1000
            evaluations += taken * (line["nfe/forward"] + line["nfe/backward"])
        if line.get("val/loss") is not None:
            curve.append(Validated(line["step"], evaluations, seconds, line["val/loss"]))
    return curve
