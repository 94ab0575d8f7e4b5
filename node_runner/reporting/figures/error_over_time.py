"""How the error of a prediction grows with time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from node_runner.reporting.figures.scene import Array, Prediction, Scene, host
from node_runner.reporting.figures.style import PALETTE, clean, figure_of, headline, legend_below, sheet


SMALLEST = 1e-16
"""A logarithmic scale has no zero."""


FEW = 20
"""Times up to which each is a dot: a line through one of them is none."""

SPANS = 25
"""Equal spans of time whose errors are taken together where trajectories were observed at times of their own."""


def draw(scene: Scene) -> Figure:
    """Median and 10-90 % band over the trajectories of each test, on a logarithmic scale."""
    figure = sheet(7.2, 4.0, "")
    axes = clean(figure.subplots(), grid=True)
    horizon = scene.horizon
    finals = []
    for colour, (name, prediction) in zip(PALETTE, scene.tests, strict=False):
        ts, columns = by_time(prediction)
        low, median, high = _quantiles(columns)
        count = len(prediction.true)
        if count > 1 and len(ts) > 1:
            axes.fill_between(ts, low, high, color=colour, alpha=0.18, linewidth=0)
        elif count > 1:
            axes.vlines(ts, low, high, color=colour, alpha=0.35, linewidth=4)
        label = f"{name}, {count} trajectories" if count > 1 else name
        axes.plot(ts, median, color=colour, marker="o" if len(ts) <= FEW else "", markersize=4, label=label)
        finals.append(f"{name} {figure_of(float(median[-1]))} at t = {ts[-1]:.3g}")
    scale = float(np.linalg.norm(host(scene.spec.std) * np.ones(scene.spec.numel)))
    axes.axhline(scale, color="0.5", linewidth=0.9, linestyle=":", label="spread of the training data")
    axes.axvline(horizon, color="0.3", linewidth=0.9, linestyle="--", label="training horizon")
    axes.set_yscale("log")
    axes.set_xlabel(scene.spec.clock)
    axes.set_ylabel("|learned - true|, median and 10-90 % band")
    axes.set_xlim(left=float(scene.predictions["train"].ts[0]))
    legend_below(figure, [axes])
    headline(figure, f"{scene.spec.dataset}: error over time, {', '.join(finals)}")
    return figure


def by_time(prediction: Prediction) -> tuple[Array, list[Array]]:
    """Times (K,), and the errors there of all trajectories; the first state is given and does not count.

    Where trajectories have gaps, a time may be that of one of them alone: errors of a span of time are taken together
    then, and spans in which nothing was observed are left out.
    """
    ts, errors = prediction.ts[1:], prediction.errors[:, 1:]
    if not np.isnan(errors).any() or len(ts) <= SPANS:
        return ts, list(errors.T)
    edges = np.linspace(prediction.ts[0], ts[-1], SPANS + 1)
    spans = np.clip(np.searchsorted(edges, ts) - 1, 0, SPANS - 1)
    columns = [errors[:, spans == span].ravel() for span in range(SPANS)]
    seen = [not np.isnan(column).all() for column in columns]
    middle: Array = (edges[:-1] + edges[1:]) / 2
    return middle[seen], [column for column, any_seen in zip(columns, seen, strict=True) if any_seen]


def _quantiles(columns: Sequence[Array]) -> Array:
    """(3, K) of the errors at K times; times at which nothing was observed, or most is lost, give NaN."""
    out = np.full((3, len(columns)), np.nan)
    for place, column in enumerate(columns):
        seen = np.sort(column[~np.isnan(column)])
        if len(seen):
            # No interpolation: halfway to an infinite error is no number.
            out[:, place] = np.quantile(seen, (0.1, 0.5, 0.9), method="nearest")
    out[~np.isfinite(out)] = np.nan
    return np.maximum(out, SMALLEST)
