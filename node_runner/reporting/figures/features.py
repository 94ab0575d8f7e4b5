"""How the hidden state of a classifier moves over its depth until the classes lie apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from torch import Tensor

from node_runner.reporting.figures.scene import Array, Scene, host
from node_runner.reporting.figures.style import class_colours, clean, planar, sheet, window


TIMES = 5
MOST, PATHS = 1000, 120
"""Examples that are shown as points, and of them those whose paths are drawn."""

FINE = 25
"""Depths at which a path is drawn; residual layers have their own."""


def draw(scene: Scene) -> Figure | None:
    """States at five depths, then the paths of some; None for models whose state has no depth, such as those of paths.

    States of more than two numbers are seen along the two directions in which the final ones vary most, the same at all
    depths. Titles give the share of the states' variance that is between the classes.
    """
    if not hasattr(scene.model, "states"):
        return None
    labels = scene.examples.y.cpu().numpy()[:MOST]
    with torch.no_grad():
        states: Tensor = scene.model.states(scene.to_model(scene.examples.x[:MOST]), FINE)
    paths = host(states.flatten(2))  # (times, N, D)
    plane, names = _project(paths)
    colours = class_colours(scene.spec.num_classes)
    last = len(paths) - 1
    shown = np.linspace(0, last, min(TIMES, len(paths))).round().astype(int)
    heading = f"{scene.spec.dataset}: the hidden state over depth, {scene.accuracy}"
    figure = sheet(2.15 * (len(shown) + 1) + 0.3, 3.5, heading)
    grid = figure.subplots(1, len(shown) + 1)
    for axes, at in zip(grid, shown, strict=False):
        axes.scatter(*plane[at].T, c=colours[labels], s=5, linewidths=0, alpha=0.8)
        axes.set_title(f"{at / last:.0%} of the depth\n{between(paths[at], labels):.0%} between classes")
        _name_classes(axes, plane[at], labels, scene.spec.class_names)
        _frame(axes, plane[at], names)
    _draw_paths(grid[-1], plane, labels, colours)
    _frame(grid[-1], plane.reshape(-1, 2), names)
    for axes in grid[1:]:
        axes.set_ylabel("")
    for name, colour in zip(scene.spec.class_names, colours, strict=True):
        grid[-1].plot([], [], ".", color=colour, label=name)
    handles, texts = grid[-1].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside lower center", ncols=len(texts), title="class", markerscale=2)
    return figure


def _frame(axes: Axes, points: Array, names: tuple[str, str]) -> None:
    """Each depth on its own scale, since states may grow a thousandfold."""
    x, y = window(points, tails=0.01)
    planar(clean(axes), x, y, names)
    axes.set_box_aspect(1)
    axes.tick_params(labelsize=6.5)
    axes.locator_params(nbins=4)


def _name_classes(axes: Axes, points: Array, labels: Array, names: Sequence[str]) -> None:
    """The name of each class where the middle of its points is."""
    halo = [withStroke(linewidth=2, foreground="white")]
    for kind in np.unique(labels):
        x, y = np.median(points[labels == kind], axis=0)
        axes.text(x, y, names[kind], ha="center", va="center", weight="bold", path_effects=halo, clip_on=True)


def _draw_paths(axes: Axes, plane: Array, labels: Array, colours: Array) -> None:
    for row in range(min(PATHS, plane.shape[1])):
        axes.plot(*plane[:, row].T, color=colours[labels[row]], linewidth=0.6, alpha=0.7)
    axes.set_title("paths from first\nto last")


def _project(paths: Array) -> tuple[Array, tuple[str, str]]:
    """States (T, N, D) in the plane, (T, N, 2), and the names of its axes."""
    if paths.shape[2] == 2:
        return paths, ("state 1", "state 2")
    if paths.shape[2] == 1:
        return np.concatenate((paths, np.zeros_like(paths)), axis=2), ("state", "")
    final = np.nan_to_num(paths[-1])
    _, _, directions = np.linalg.svd(final - final.mean(axis=0), full_matrices=False)
    return paths @ directions[:2].T, ("component 1", "component 2")


def between(states: Array, labels: Array) -> float:
    """Share of the variance of states (N, D) that is that of their classes' means: 1 where each class is one point."""
    centre = states.mean(axis=0)
    total = ((states - centre) ** 2).sum()
    kinds, counts = np.unique(labels, return_counts=True)
    means = np.stack([states[labels == kind].mean(axis=0) for kind in kinds])
    return float((counts[:, None] * (means - centre) ** 2).sum() / total) if total else 0.0
