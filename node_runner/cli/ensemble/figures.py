"""Pictures of an ensemble: bands over data and beyond, and how far they can be believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from node_runner.cli.arrays import Array
from node_runner.cli.ensemble.averaged import Votes, reliability
from node_runner.cli.ensemble.forecasts import LEVELS, Forecast, over_time
from node_runner.reporting.figures.horizon import beyond
from node_runner.reporting.figures.style import (
    BEYOND,
    LEARNED,
    PALETTE,
    SHADE,
    clean,
    legend_below,
    limits,
    sheet,
    style,
)
from node_runner.views import DataSpec


MOST_AXES = 4


def draw_forecast(
    part: tuple[str, Forecast],
    curves: Mapping[str, Sequence[float]],
    spec: DataSpec,
    level: float,
) -> Figure:
    """Two trajectories with their bands, error and spread over time, and coverage of bands of every level.

    Args:
        part: name and forecast of the part that is drawn.
        curves: by part, the share of the true states inside the bands of each of `LEVELS`.
        spec: of the data: what they, the axes of the state and time are called.
        level: of the bands that are drawn.
    """
    name, forecast = part
    axes_shown = min(MOST_AXES, forecast.true.shape[2])
    names = spec.names("y", axes_shown)
    with style():
        title = f"{spec.dataset}: {len(forecast.members)} seeds, mean and {level:.0%} band"
        figure = sheet(11.0, max(4.2, 1.75 * axes_shown + 0.9), title)
        parts: Any = figure.subfigures(1, 2, width_ratios=(1.7, 1))
        left, right = parts
        rows = chosen(forecast)
        grid = left.subplots(axes_shown, len(rows), sharex=True, sharey="row", squeeze=False)
        for place, (row, words) in enumerate(rows):
            grid[0, place].set_title(f"{name}, {words}" if words else name)
            grid[-1, place].set_xlabel(spec.clock)
            for axis in range(axes_shown):
                _bands(clean(grid[axis, place]), forecast, row, axis, level)
        for axis in range(axes_shown):
            grid[axis, 0].set_ylabel(names[axis])
            finite = forecast.true[[row for row, _ in rows]][..., axis]
            mean = forecast.mean[[row for row, _ in rows]][..., axis]
            grid[axis, 0].set_ylim(*limits(np.concatenate([finite.ravel(), mean.ravel()]), margin=0.25))
        legend_below(left, grid[0])
        upper, lower = right.subplots(2, 1)
        _over_time(clean(upper, grid=True), forecast, name, spec.clock)
        _coverage(clean(lower, grid=True), curves)
        return figure


def chosen(forecast: Forecast) -> list[tuple[int, str]]:
    """The rows of median and largest error of the mean, and what to call them."""
    squares = np.nanmean((forecast.mean - forecast.true) ** 2, axis=(1, 2))
    order = np.argsort(squares)
    count = len(order)
    if count == 1:
        return [(0, "")]
    return [(int(order[(count - 1) // 2]), f"median of {count}"), (int(order[-1]), f"worst of {count}")]


def _bands(axes: Axes, forecast: Forecast, row: int, axis: int, level: float) -> None:
    where = ~np.isnan(forecast.mean[row, :, axis])  # the times of this series
    ts, mean = forecast.ts[where], forecast.mean[row, where, axis]
    half = forecast.half_width(level)[row, where, axis]
    if beyond(forecast.ts[-1], forecast.horizon):
        axes.axvspan(forecast.horizon, forecast.ts[-1], color=SHADE, linewidth=0, label="beyond the training data")
    axes.fill_between(ts, mean - half, mean + half, color=LEARNED, alpha=0.25, linewidth=0, label=f"{level:.0%} band")
    for place, member in enumerate(forecast.members[:, row][:, where, axis]):
        axes.plot(ts, member, color=LEARNED, linewidth=0.5, alpha=0.6, label=None if place else "members")
    axes.plot(ts, mean, color=LEARNED, linewidth=1.4, label="mean")
    true = forecast.true[row, where, axis]
    every = max(1, int(np.isfinite(true).sum()) // 60)
    seen = np.flatnonzero(np.isfinite(true))[::every]
    axes.plot(ts[seen], true[seen], ".", color="0.15", markersize=3, markeredgewidth=0, label="truth")
    axes.set_xlim(forecast.ts[0], forecast.ts[-1])


def _over_time(axes: Axes, forecast: Forecast, name: str, clock: str) -> None:
    """Error of the mean and spread, both over all trajectories."""
    curves = over_time(forecast)
    if beyond(forecast.ts[-1], forecast.horizon):
        axes.axvspan(forecast.horizon, forecast.ts[-1], color=SHADE, linewidth=0)
    for key, colour, label in (("rmse_mean", BEYOND, "RMS error of the mean"), ("spread", LEARNED, "spread")):
        values = np.where(curves[key] > 0, curves[key], np.nan)
        axes.plot(curves["t"], values, color=colour, label=label)
    axes.set(yscale="log", xlabel=clock, title=f"{name}: error and spread", xlim=(forecast.ts[0], forecast.ts[-1]))
    axes.legend()


def _coverage(axes: Axes, curves: Mapping[str, Sequence[float]]) -> None:
    """Share of true states inside the bands, against what the bands promise."""
    axes.plot([0, 1], [0, 1], color="0.6", linestyle=":", linewidth=1.0)
    for (name, shares), colour in zip(curves.items(), PALETTE, strict=False):
        axes.plot([0, *LEVELS], [0, *shares], color=colour, label=name)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="level of the band", ylabel="true states inside", title="calibration")
    axes.legend(loc="best")


def draw_votes(votes: Votes, dataset: str) -> Figure:
    """Accuracy by confidence, and mistakes among the examples of which the model is surest: members and ensemble."""
    shown = [(one, "0.7", 0.8, None if place else "members") for place, one in enumerate(votes.probabilities)]
    shown.append((votes.mean, LEARNED, 1.8, "ensemble"))
    with style():
        figure = sheet(8.6, 4.0, f"{dataset}: {len(votes.probabilities)} seeds alone and together")
        left, right = figure.subplots(1, 2)
        left.plot([0, 1], [0, 1], color="0.6", linestyle=":", linewidth=1.0)
        for shares, colour, width, label in shown:
            confidence, accuracy, counts = reliability(shares, votes.labels)
            sizes = 6 + 120 * counts / len(votes.labels)
            left.scatter(confidence, accuracy, sizes, color=colour, alpha=0.8, linewidths=0, label=label)
            kept, mistakes = _selective(shares, votes)
            right.plot(kept, mistakes, color=colour, linewidth=width, label=label)
        clean(left, grid=True).set(
            xlabel="confidence", ylabel="accuracy", title="accuracy by confidence, larger where more examples"
        )
        clean(right, grid=True).set(xlabel="share of the examples kept, the surest first", xlim=(0, 1))
        right.set(ylabel="mistakes among them")
        right.legend()
        return figure


def _selective(shares: Array, votes: Votes) -> tuple[Array, Array]:
    """Share of examples kept, the most confident first, and share of mistakes among them."""
    wrong = (shares.argmax(axis=1) != votes.labels)[np.argsort(-shares.max(axis=1), kind="stable")]
    counts = np.arange(1, len(wrong) + 1)
    return counts / len(wrong), np.cumsum(wrong) / counts
