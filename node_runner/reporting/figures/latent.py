"""What a latent model makes of series: where each begins in the latent space, and how it goes on from there."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from node_runner.reporting.figures.scene import Array, Scene, host
from node_runner.reporting.figures.style import BEYOND, LEARNED, clean, legend_below, planar, sheet, window
from node_runner.tasks.series import series_batch


MOST, PATHS = 500, 40
"""Test series whose beginnings are shown, and those that are followed."""


class Plane(NamedTuple):
    """The two directions in which latent states vary most. centre: (Z,), axes: (2, Z), shares: of the variance."""

    centre: Array
    axes: Array
    shares: Array

    def __call__(self, z: Array) -> Array:
        """(..., Z) -> (..., 2)."""
        flat: Array = (z - self.centre) @ self.axes.T
        return flat


def plane_of(states: Array) -> Plane:
    """Of latent states (..., Z), Z at least 2: their first two principal components."""
    flat = states.reshape(-1, states.shape[-1])
    centre = flat.mean(axis=0)
    _, sizes, axes = np.linalg.svd(flat - centre, full_matrices=False)
    return Plane(centre, axes[:2], sizes[:2] ** 2 / np.sum(sizes**2))


def draw(scene: Scene) -> Figure | None:
    """Where test series begin, coloured by their first value, and the paths that some take; None without such codes."""
    if not hasattr(scene.model, "posterior"):
        return None
    part = scene.series
    batch = series_batch(part, part.rows(MOST))
    mean, log_std = scene.model.posterior(batch.ts, batch.values, batch.seen)
    if mean.shape[1] < 2:
        return None
    states = host(scene.model.trajectory(mean, part.grid))
    if not np.isfinite(states).all():
        return None
    inside = int((part.grid <= part.last_seen).sum())
    plane = plane_of(states[: max(inside, 1)])
    names = [f"principal component {i + 1} ({share:.0%})" for i, share in enumerate(plane.shares)]
    uncertain = float(log_std.exp().mean())
    heading = f"{scene.spec.dataset}: {mean.shape[1]} latent numbers, mean deviation of the posterior {uncertain:.2g}"
    figure = sheet(9.6, 4.6, heading)
    left, right = figure.subplots(1, 2)
    begins, paths = plane(states[0]), plane(states[:, :PATHS])
    label = scene.axis_names[0]
    values = host(scene.model.decode(mean)[:, 0])
    dots = left.scatter(*begins.T, c=values, s=9, cmap="viridis", linewidths=0)
    figure.colorbar(dots, ax=left, label=f"{label} at the beginning, decoded", shrink=0.85)
    planar(clean(left), *window(begins), names)
    left.set_title(f"where {len(begins)} test series begin")
    for number, path in enumerate(paths.transpose(1, 0, 2)):
        named = functools.partial(_once, number)
        right.plot(*path[:inside].T, color=LEARNED, linewidth=0.9, alpha=0.7, label=named("while observed"))
        if inside < len(path):
            right.plot(*path[max(inside - 1, 0) :].T, color=BEYOND, linewidth=0.9, alpha=0.7, label=named("after"))
        right.plot(*path[0], ".", color="black", markersize=5, markeredgewidth=0, label=named("beginning"))
    planar(clean(right), *window(paths.reshape(-1, 2)), names)
    right.set_title(f"the paths of {paths.shape[1]}")
    legend_below(figure, [right])
    return figure


def _once(number: int, label: str) -> str | None:
    return label if number == 0 else None
