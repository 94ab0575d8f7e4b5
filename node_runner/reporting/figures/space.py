"""Trajectories of three-dimensional states in space, true and learned."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from node_runner.reporting.figures.horizon import beyond
from node_runner.reporting.figures.scene import Scene
from node_runner.reporting.figures.style import BEYOND, LEARNED, TRUE, headline, legend_below, limits
from node_runner.reporting.figures.trajectories import choose, title


FADED = 24
"""Training trajectories that are drawn behind, at the most."""


def draw(scene: Scene) -> Figure | None:
    """A panel a trajectory, those of `trajectories`, with the training data behind; only where the state has 3 axes."""
    if scene.spec.numel != 3:
        return None
    columns = choose(scene)[1:]  # the training trajectories are behind all of them
    if not columns:
        return None
    names, train = scene.axis_names, scene.predictions["train"]
    box = [limits(np.concatenate([p.true[..., axis].ravel() for p in scene.predictions.values()])) for axis in range(3)]
    # Constrained layout knows nothing of what stands beside the axes of a box.
    figure = Figure(figsize=(3.9 * len(columns) + 0.3, 4.5))
    headline(figure, title(scene, 3))
    panels: list[Any] = [
        figure.add_subplot(1, len(columns), place, projection="3d") for place in range(1, len(columns) + 1)
    ]
    for axes, column in zip(panels, columns, strict=True):
        for states in train.true[:FADED]:
            axes.plot(*states.T, color=TRUE, linewidth=0.5, alpha=0.35)
        prediction, row = column.prediction, column.row
        true, learned = prediction.true[row], _inside(prediction.learned[row], box)
        inside = int((~beyond(prediction.ts, scene.horizon)).sum())
        axes.plot(*true.T, color="0.15", linewidth=1.2, linestyle=(0, (4, 2)), label="true")
        axes.plot(*learned[:inside].T, color=LEARNED, linewidth=1.4, label="learned")
        if inside < len(learned):
            label = "learned, beyond the training horizon"
            axes.plot(*learned[inside - 1 :].T, color=BEYOND, linewidth=1.4, label=label)
        axes.plot(*true[:1].T, "o", color="0.15", markersize=4, label="start")
        _frame(axes, names, box)
        axes.set_title(column.title, y=1.0)
    figure.subplots_adjust(left=0.01, right=0.94, bottom=0.1, top=0.88, wspace=0.12)
    legend_below(figure, panels)
    return figure


def _inside(states: Any, box: list[tuple[float, float]]) -> Any:
    """States (T, 3) up to the first that leaves the box: what is outside would be drawn over everything else."""
    low, high = np.array(box).T
    outside = ((states < low) | (states > high)).any(axis=1)
    kept = states.copy()
    kept[np.maximum.accumulate(outside)] = np.nan
    return kept


def _frame(axes: Any, names: list[str], box: list[tuple[float, float]]) -> None:
    """A light box with named axes."""
    axes.set(xlim=box[0], ylim=box[1], zlim=box[2], xlabel=names[0], ylabel=names[1], zlabel=names[2])
    axes.view_init(elev=22, azim=-58)
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_pane_color((1.0, 1.0, 1.0, 0.0))
        axis._axinfo["grid"].update(color="0.92", linewidth=0.5)
        axis.labelpad = -2
    axes.tick_params(pad=-1, labelsize=7)
