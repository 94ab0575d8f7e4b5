"""How a flow carries its base distribution to the data."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from node_runner.reporting.figures.samples import picture, shades
from node_runner.reporting.figures.scene import TIMES, Array, Scene, host
from node_runner.reporting.figures.style import clean, height, planar, sheet, window


POINTS, ROWS = 2000, 6


def draw(scene: Scene) -> Figure | None:
    """Samples at six times between base and data: points coloured by where they began, or images on their way."""
    if scene.spec.image:
        return _images(scene)
    if scene.spec.numel < 2:
        return None
    paths = scene.paths[:, :POINTS, :2]
    data = host(scene.splits.test.x[:, :2])
    x, y = window(np.concatenate([data, paths[0], paths[-1]]), tails=0.002)
    heading = f"{scene.spec.dataset}: from the base to the data, {paths.shape[1]:,} points coloured by where they begin"
    figure = sheet(2.05 * TIMES + 0.4, 1.95 * height(x, y) + 1.0, heading)
    colours = by_direction(paths[0])
    for axes, states, name in zip(figure.subplots(1, TIMES, sharey=True), paths, _times(scene), strict=True):
        axes.scatter(*states.T, c=colours, s=2.5, alpha=0.85, linewidths=0)
        axes.set_title(name)
        planar(clean(axes), x, y, scene.axis_names).label_outer()
        # Not as many as fit: the layout makes room for the labels of larger panels than there are in the end.
        axes.locator_params(nbins=4, steps=[1, 2, 5, 10])
    return figure


def by_direction(points: Array) -> Array:
    """Colours (N, 3) of points (N, 2) in the plane by the direction in which each lies from their middle."""
    centre = points - np.nanmean(points, axis=0)
    turn = 0.5 + np.arctan2(centre[:, 1], centre[:, 0]) / (2 * np.pi)
    colours: Array = 0.8 * mpl.colormaps["twilight_shifted"](turn)[:, :3]  # darkened: the map passes through white
    return colours


def _times(scene: Scene) -> list[str]:
    """A title for each time, which runs from the end time of the flow, where the base is, to 0."""
    times = np.linspace(float(scene.model.times[-1]), 0.0, TIMES)
    names = [f"t = {t:.2g}" for t in times]
    return [f"{names[0]} (base)", *names[1:-1], f"{names[-1]} (data)"]


def _images(scene: Scene) -> Figure:
    figure = sheet(1.1 * TIMES + 0.3, 1.1 * ROWS + 0.7, f"{scene.spec.dataset}: from noise to images")
    grid = figure.subplots(ROWS, TIMES)
    images: Array = shades(scene.paths[:, :ROWS], scene.spec.levels)
    for place, name in enumerate(_times(scene)):
        grid[0, place].set_title(name)
        for row in range(ROWS):
            picture(grid[row, place], images[place, row], scene.spec.image)
    return figure
