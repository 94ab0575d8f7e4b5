"""Irregular series: what was seen, what was true, what is predicted between and after."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from node_runner.reporting.figures.scene import Array, Scene, host
from node_runner.reporting.figures.style import (
    BEYOND,
    LEARNED,
    SHADE,
    TRUE,
    clean,
    figure_of,
    legend_below,
    limits,
    sheet,
    square,
)
from node_runner.tasks.series import series_batch


MOST, DRAWS, MOST_AXES = 200, 8, 4
"""Series of the test that are looked at, draws of a posterior, and axes that are shown."""


class Continued(NamedTuple):
    """Series as seen, true and predicted.

    ts: (N, T); seen, true and learned: (N, T, D), NaN where there is nothing; drawn: (S, N, T, D) of a posterior, S = 0
    where the model has none; end: the last time at which anything may be seen.
    """

    ts: Array
    seen: Array
    true: Array
    learned: Array
    drawn: Array
    end: float

    @property
    def errors(self) -> Array:
        """Mean squared error (N,) after the end, or of everything where nothing lies after it.

        NaN for a series of which nothing is known there, infinite for one whose prediction is not finite.
        """
        after = self.ts > self.end
        where = after if after.any() else np.ones_like(after)
        known = np.isfinite(self.true) & where[..., None]
        squares = np.where(known, (self.learned - self.true) ** 2, 0).sum(axis=(1, 2))
        count = known.sum(axis=(1, 2))
        return np.where(count > 0, np.nan_to_num(squares, nan=np.inf) / np.maximum(count, 1), np.nan)


def continued(scene: Scene) -> Continued:
    """The first test series, as the model predicts them."""
    part = scene.series
    batch = series_batch(part, part.rows(MOST))
    with torch.no_grad():
        output = scene.model(batch.ts, batch.values, batch.seen)
        drawn = np.empty((0, *batch.values.transpose(0, 1).shape))
        if hasattr(scene.model, "imagine"):
            generator = torch.Generator().manual_seed(0)
            states = scene.model.imagine(batch.ts, batch.values, batch.seen, DRAWS, generator=generator)
            drawn = host(states.transpose(1, 2))
    values, target, known, seen = (
        x.transpose(0, 1) for x in (batch.values, batch.lesson.target, batch.lesson.known, batch.seen)
    )
    ts = batch.times.t()
    observed, true = (host(torch.where(where, x, torch.nan)) for where, x in ((seen, values), (known, target)))
    padding = (ts.diff(dim=1, prepend=ts[:, :1] - 1) <= 0).unsqueeze(2)
    learned = host(torch.where(padding, torch.nan, output.value.transpose(0, 1)))
    return Continued(host(ts), observed, true, learned, drawn, part.last_seen)


def draw_times(scene: Scene) -> Figure:
    """A column a test series, best, median and worst continued, a row an axis; what lies after the end is shaded."""
    found = continued(scene)
    names = scene.axis_names[:MOST_AXES]
    columns = chosen(found)
    figure = sheet(3.1 * len(columns) + 0.4, 1.75 * len(names) + 1.2, title(scene))
    grid = figure.subplots(len(names), len(columns), sharex=True, sharey="row", squeeze=False)
    for place, (name, row) in enumerate(columns):
        grid[0, place].set_title(f"{name}\nmse {figure_of(float(found.errors[row]))}")
        grid[-1, place].set_xlabel(scene.spec.clock)
        for axis, label in enumerate(names):
            axes = clean(grid[axis, place])
            if found.ts.max() > found.end:
                axes.axvspan(found.end, found.ts.max(), color=SHADE, linewidth=0, label="nothing is seen here")
            _lines(axes, found, row, functools.partial(_in_time, found.ts[row], axis))
            if place == 0:
                axes.set_ylabel(label)
    for axis in range(len(names)):
        grid[axis, 0].set_ylim(*limits(found.true[[row for _, row in columns], :, axis], margin=0.25))
    legend_below(figure, grid[-1])
    return figure


def draw_plane(scene: Scene) -> Figure | None:
    """The same in the plane of the state; None where it has other than two axes."""
    if scene.spec.shape != (2,):
        return None
    found = continued(scene)
    columns = chosen(found)
    figure = sheet(3.4 * len(columns) + 0.3, 4.9, title(scene))
    panels = figure.subplots(1, len(columns), squeeze=False)[0]
    for axes, (name, row) in zip(panels, columns, strict=True):
        clean(axes)
        _lines(axes, found, row, lambda states: (states[..., 0], states[..., 1]), apart=True)
        x, y = square(found.true[row], margin=0.25)
        axes.set(xlim=x, ylim=y, xlabel=scene.axis_names[0], title=f"{name}\nmse {figure_of(float(found.errors[row]))}")
        axes.set_aspect("equal")
    panels[0].set_ylabel(scene.axis_names[1])
    legend_below(figure, panels)
    return figure


def chosen(found: Continued) -> list[tuple[str, int]]:
    """(what to call it, row) of the best, the median and the worst of the test series whose continuation is known."""
    order = np.argsort(found.errors)  # NaN comes last
    order = order[: max(1, (~np.isnan(found.errors)).sum())]
    count = len(order)
    places = {"best": 0, "median": (count - 1) // 2, "worst": count - 1} if count > 2 else {"test series": 0}
    return [(f"{name} of {count}" if count > 2 else name, int(order[place])) for name, place in places.items()]


def title(scene: Scene) -> str:
    """What is shown, with the errors of the whole test."""
    shares = {"interpolation": "test/interpolation_mse", "extrapolation": "test/extrapolation_mse"}
    measured = {name: scene.measured(key) for name, key in shares.items()}
    numbers = [f"{name} mse {figure_of(value)}" for name, value in measured.items() if value is not None]
    return ", ".join([f"{scene.spec.dataset}: irregular series and their continuation", *numbers])


def _in_time(ts: Array, axis: int, states: Array) -> tuple[Array, Array]:
    return ts, states[..., axis]


def _lines(
    axes: Axes, found: Continued, row: int, view: Callable[[Array], tuple[Array, Array]], *, apart: bool = False
) -> None:
    """Truth, draws of the posterior, prediction and observations of one series.

    Args:
        view: states (T, D) -> what is drawn across and up, (T,) each.
        apart: draw the prediction in another colour where nothing is seen.
    """
    # A dot on each value, or one that stands alone would have no line to be seen in.
    axes.plot(*view(found.true[row]), ".-", color=TRUE, linewidth=3.2, markersize=6.4, alpha=0.8, label="true")
    for number, states in enumerate(found.drawn[:, row]):
        label = "draws of the posterior" if number == 0 else None
        axes.plot(*view(states), color=LEARNED, linewidth=0.6, alpha=0.45, label=label)
    inside = found.ts[row] <= found.end
    if apart:
        within, after = found.learned[row].copy(), found.learned[row].copy()
        within[~inside], after[: max(0, inside.sum() - 1)] = np.nan, np.nan
        axes.plot(*view(within), color=LEARNED, linewidth=1.5, label="predicted")
        axes.plot(*view(after), color=BEYOND, linewidth=1.5, label="predicted, nothing seen")
    else:
        axes.plot(*view(found.learned[row]), color=LEARNED, linewidth=1.5, label="predicted")
    axes.plot(*view(found.seen[row]), ".", color="black", markersize=4.5, markeredgewidth=0, label="seen")
