"""True against learned states in time."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from node_runner.reporting.figures.horizon import beyond
from node_runner.reporting.figures.scene import Prediction, Scene
from node_runner.reporting.figures.style import LEARNED, SHADE, TRUE, clean, figure_of, legend_below, limits, sheet


MOST_AXES, FEW = 4, 5
"""Axes that are shown, and times up to which a line through them is dotted."""


class Column(NamedTuple):
    """One trajectory of a prediction: what to call it, and where it stands."""

    title: str
    prediction: Prediction
    row: int


def draw(scene: Scene) -> Figure:
    """A column a trajectory, a row an axis of the state; times beyond the training horizon are shaded."""
    columns = choose(scene)
    names = scene.axis_names[:MOST_AXES]
    horizon = scene.horizon
    figure = sheet(2.9 * len(columns) + 0.4, 1.75 * len(names) + 1.2, title(scene, len(names)))
    grid = figure.subplots(len(names), len(columns), sharex="col", sharey="row", squeeze=False)
    for place, column in enumerate(columns):
        for axis, name in enumerate(names):
            axes = clean(grid[axis, place])
            _line(axes, column, axis, horizon, observed=place == 0)
            if place == 0:
                axes.set_ylabel(name)
        mse = column.prediction.mse[column.row]
        grid[0, place].set_title(f"{column.title}\nmse {figure_of(float(mse))}")
        grid[-1, place].set_xlabel(scene.spec.clock)
        grid[-1, place].set_xlim(column.prediction.ts[0], column.prediction.ts[-1])
    for axis in range(len(names)):
        shown = np.concatenate([c.prediction.true[c.row, :, axis] for c in columns])
        grid[axis, 0].set_ylim(*limits(shown, margin=0.2))
    legend_below(figure, grid[-1])
    return figure


def choose(scene: Scene) -> list[Column]:
    """One training trajectory, and of each test the one of median error and the worst, up to four in all."""
    columns = [Column("training trajectory", scene.predictions["train"], 0)]
    tests = list(scene.tests)
    for name, prediction in tests:
        order = np.argsort(prediction.mse)
        count = len(order)
        columns.append(
            Column(name if count == 1 else f"{name}, median of {count}", prediction, order[(count - 1) // 2])
        )
        if count > 1 and prediction is tests[-1][1]:
            columns.append(Column(f"{name}, worst of {count}", prediction, order[-1]))
    return columns[:4]


def title(scene: Scene, shown: int) -> str:
    """What is shown, with the mean squared error of every test."""
    numbers = []
    for name, prediction in scene.tests:
        mse = scene.measured(f"{name}/mse")
        numbers.append(f"{name} mse {figure_of(prediction.mean_mse if mse is None else mse)}")
    some = f" (first {shown} of {scene.spec.numel} axes)" if shown < scene.spec.numel else ""
    return f"{scene.spec.dataset}: true and learned trajectories{some}, " + ", ".join(numbers)


def _line(axes: Axes, column: Column, axis: int, horizon: float, *, observed: bool) -> None:
    ts = column.prediction.ts
    true, learned = (states[column.row, :, axis] for states in (column.prediction.true, column.prediction.learned))
    if beyond(ts[-1], horizon):
        axes.axvspan(horizon, ts[-1], color=SHADE, linewidth=0, label="beyond the training horizon")
    # Between two times of a few the path is not known, and that of a solve may bend.
    few: dict[str, Any] = {"linestyle": ":", "marker": "o", "markersize": 4, "clip_on": False} if len(ts) <= FEW else {}
    if observed or few or np.isnan(true).any():
        size, clip = (10.0, False) if few else (4.5, True)
        axes.plot(ts, true, ".", color="0.5", markersize=size, markeredgewidth=0, label="observed", clip_on=clip)
    else:
        axes.plot(ts, true, color=TRUE, linewidth=3.2, alpha=0.8, label="true")
    axes.plot(ts, learned, color=LEARNED, linewidth=1.4, label="learned", **few)
