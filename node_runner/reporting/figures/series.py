"""Irregular series: what was seen, what was true, what is predicted between and after."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from node_runner.batches import SeriesBatch
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


MOST, DRAWS, MOST_AXES, FINE = 200, 8, 4, 241
"""Series of the test that are looked at, draws of a posterior, axes that are shown, and times of a smooth line."""

View = Callable[[Array, Array], tuple[Array, Array]]
"""(times (T,), states (T, D)) -> what is drawn across and up, (T,) each."""


class Lines(NamedTuple):
    """What a model draws through series: ts (N, F), learned (N, F, D), drawn (S, N, F, D) of a posterior, if any."""

    ts: Array
    learned: Array
    drawn: Array


class Continued(NamedTuple):
    """Series as seen, true and predicted.

    ts: (N, T); seen, true and learned: (N, T, D), NaN where there is nothing; lines: what the model draws through them;
    end: the last time at which anything may be seen; shared: whether all have the same times.
    """

    ts: Array
    seen: Array
    true: Array
    learned: Array
    lines: Lines
    end: float
    shared: bool = True

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
    values, target, known, seen = (
        x.transpose(0, 1) for x in (batch.values, batch.lesson.target, batch.lesson.known, batch.seen)
    )
    ts = batch.times.t()
    observed, true = (host(torch.where(where, x, torch.nan)) for where, x in ((seen, values), (known, target)))
    padding = (ts.diff(dim=1, prepend=ts[:, :1] - 1) <= 0).unsqueeze(2)
    learned = host(torch.where(padding, torch.nan, output.value.transpose(0, 1)))
    lines = smooth(scene.model, batch) or Lines(host(ts), learned, _draws(scene.model, batch))
    return Continued(host(ts), observed, true, learned, lines, part.last_seen, part.ts.dim() == 1)


def smooth(model: Any, batch: SeriesBatch, seed: int = 0) -> Lines | None:
    """What a model that knows all times says of them, from the first of the batch to the last; None for another."""
    if not hasattr(model, "between"):
        return None
    at = torch.linspace(
        float(batch.ts.min()), float(batch.ts.max()), FINE, dtype=batch.ts.dtype, device=batch.ts.device
    )
    learned = host(model.between(*batch[:3], at).transpose(0, 1))
    ts: Array = np.broadcast_to(host(at), learned.shape[:2])
    return Lines(ts, learned, _draws(model, batch, seed, at=at))


def _draws(model: Any, batch: SeriesBatch, seed: int = 0, **places: Tensor) -> Array:
    if not hasattr(model, "imagine"):
        return np.empty((0, *batch.values.transpose(0, 1).shape))
    generator = torch.Generator().manual_seed(seed)
    return host(model.imagine(*batch[:3], DRAWS, generator=generator, **places).transpose(1, 2))


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
            _lines(axes, found, row, functools.partial(_in_time, axis))
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
        _lines(axes, found, row, _in_plane, apart=True)
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


def _in_time(axis: int, ts: Array, states: Array) -> tuple[Array, Array]:
    return ts, states[..., axis]


def _in_plane(ts: Array, states: Array) -> tuple[Array, Array]:
    return states[..., 0], states[..., 1]


def _lines(axes: Axes, found: Continued, row: int, view: View, *, apart: bool = False) -> None:
    """Truth, draws of the posterior, prediction and observations of one series.

    Args:
        view: what is drawn across and up.
        apart: draw the prediction in another colour where nothing is seen.
    """
    # A dot on each value, or one that stands alone would have no line to be seen in. Times of a series' own may lie
    # far apart: a straight line from one to the next is not the truth.
    own, (ts, learned) = found.ts[row], (found.lines.ts[row], found.lines.learned[row])
    line, name = (".-", "true") if found.shared else (".", "observed")
    axes.plot(*view(own, found.true[row]), line, color=TRUE, linewidth=3.2, markersize=6.4, alpha=0.8, label=name)
    for number, states in enumerate(found.lines.drawn[:, row]):
        label = "draws of the posterior" if number == 0 else None
        axes.plot(*view(ts, states), color=LEARNED, linewidth=0.6, alpha=0.45, label=label)
    inside = ts <= found.end
    if apart:
        within, after = learned.copy(), learned.copy()
        within[~inside], after[: max(0, inside.sum() - 1)] = np.nan, np.nan
        axes.plot(*view(ts, within), color=LEARNED, linewidth=1.5, label="predicted")
        axes.plot(*view(ts, after), color=BEYOND, linewidth=1.5, label="predicted, nothing seen")
    else:
        axes.plot(*view(ts, learned), color=LEARNED, linewidth=1.5, label="predicted")
    axes.plot(*view(own, found.seen[row]), ".", color="black", markersize=4.5, markeredgewidth=0, label="seen")
