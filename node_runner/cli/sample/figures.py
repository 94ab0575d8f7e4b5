"""Pictures of what `node-run sample` makes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from node_runner.cli.arrays import Array
from node_runner.reporting.figures.horizon import beyond
from node_runner.reporting.figures.samples import mosaic, picture, shades
from node_runner.reporting.figures.style import DENSITY, PALETTE, clean, legend_below, planar, sheet, style, window


IMAGES = 100
"""Images that a picture shows at the most."""


def draw_points(points: Array, densities: Array, labels: Sequence[str], run: str) -> Figure:
    """The first two axes of points (N, D), coloured by their log-density (N,)."""
    with style():
        part = ", the first two axes" if points.shape[1] > 2 else ""
        figure = sheet(5.2, 4.4, f"{run}: {len(points):,} samples{part}")
        axes = clean(figure.subplots())
        if points.shape[1] == 1:
            axes.hist(points[:, 0], bins="auto", density=True, color=PALETTE[0])
            axes.set(xlabel=labels[0], ylabel="density of the samples")
            return figure
        dots = axes.scatter(points[:, 0], points[:, 1], c=densities, s=6, cmap=DENSITY, linewidths=0)
        x, y = window(points, tails=0.001)
        planar(axes, x, y, labels[:2])
        figure.colorbar(dots, ax=axes, label="log-density in nats")
        return figure


def draw_images(points: Array, shape: tuple[int, ...], levels: int, run: str) -> Figure:
    """Images (N, P) side by side."""
    shown = points[:IMAGES]
    with style():
        figure = sheet(5.0, 5.3, f"{run}: {len(shown)} samples")
        picture(figure.subplots(), mosaic(shades(shown, levels), shape), ())
        return figure


def draw_trajectories(
    ts: Array,
    ys: Array,
    labels: Sequence[str],
    clock: str,
    horizon: float,
    run: str,
    ending: str = "end of training",
) -> Figure:
    """Trajectories (N, T, D) over time; for two dimensions in the plane too.

    Args:
        ts: (T,) times, or (N, T) those of each.
        ys: predicted states.
        labels, clock: names of the axes of the state, and of time.
        horizon: time up to which the model was trained, or saw anything; a line marks it.
        run: whose samples they are, for the title.
        ending: what that line is called.
    """
    plane, times = ys.shape[2] == 2, np.broadcast_to(ts, ys.shape[:2])
    with style():
        figure = sheet(8.4 if plane else 5.4, 3.8, f"{run}: {len(ys)} predicted trajectories")
        panels = list(figure.subplots(1, 2)) if plane else [figure.subplots()]
        over_time = clean(panels[0], grid=True)
        for axis, label in enumerate(labels):
            for row, path in enumerate(ys):
                colour = PALETTE[axis % len(PALETTE)]
                over_time.plot(times[row], path[:, axis], color=colour, alpha=0.8, label=label if row == 0 else None)
        if beyond(ts.max(), horizon):
            over_time.axvline(horizon, color="0.5", linestyle=":", label=ending)
        over_time.set(xlabel=clock, ylabel="state")
        legend_below(figure, [over_time])
        if plane:
            x, y = window(ys.reshape(-1, 2))
            for row, path in enumerate(ys):
                colour = PALETTE[row % len(PALETTE)]
                panels[1].plot(path[:, 0], path[:, 1], color=colour)
                panels[1].plot(*path[0], marker="o", color=colour)
            planar(clean(panels[1]), x, y, labels)
        return figure
