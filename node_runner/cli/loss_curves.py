"""Loss against what it cost: one curve a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from node_runner.cli.figure_file import write_figure
from node_runner.errors import DataError
from node_runner.reporting.figures.style import class_colours, clean, sheet, style
from node_runner.reporting.run_folder import RunFolder


Curve = list[tuple[float, float, float]]
"""(seconds of training, evaluations of the field, val/loss) at each validation."""


LETTERS = 110
"""Letters that fit on a line of the legend."""


def loss_curve(folder: RunFolder) -> Curve:
    """val/loss of a run against the cost up to each validation, summed from its lines of metrics."""
    curve: Curve = []
    step, seconds, evaluations = 0, 0.0, 0.0
    for line in folder.read_metrics():
        if "time/step_ms" in line:
            taken = line["step"] - step
            step = int(line["step"])
            seconds += taken * line["time/step_ms"] / 1000
            evaluations += taken * (line["nfe/forward"] + line["nfe/backward"])
        if line.get("val/loss") is not None:
            curve.append((seconds, evaluations, line["val/loss"]))
    return curve


def draw_losses(runs: Mapping[str, RunFolder], file: Path) -> None:
    """Draw val/loss against seconds and against evaluations.

    Args:
        runs: by the name that the legend shows.
        file: image to write; its ending decides on the format.

    Raises:
        DataError: no run has been validated yet.
        ConfigError: the ending is no image format.
    """
    curves = {name: curve for name, folder in runs.items() if (curve := loss_curve(folder))}
    if not curves:
        raise DataError("nothing to plot: none of these runs has been validated yet")
    with style():
        columns = max(1, min(3, len(curves), LETTERS // max(map(len, curves))))
        rows = math.ceil(len(curves) / columns)
        figure = sheet(9.0, 3.8 + 0.2 * rows, "loss of the validation part, by what training cost")
        axes = figure.subplots(1, 2, sharey=True)
        for (name, curve), colour in zip(curves.items(), class_colours(len(curves)), strict=True):
            seconds, evaluations, losses = zip(*curve, strict=True)
            axes[0].plot(seconds, losses, marker=".", color=colour, label=name)
            axes[1].plot(evaluations, losses, marker=".", color=colour)
        positive = all(loss > 0 for curve in curves.values() for _, _, loss in curve)
        for ax, label in zip(axes, ("seconds of training", "evaluations of the field, both ways"), strict=True):
            clean(ax, grid=True).set(xlabel=label, yscale="log" if positive else "linear")
        axes[0].set_ylabel("val/loss")
        figure.legend(loc="outside lower center", ncols=columns)
        write_figure(figure, file)
