"""The states of the nodes of a graph at several times, true against learned."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from node_runner.reporting.figures.scene import Array, Scene, host
from node_runner.reporting.figures.style import DENSITY, figure_of, limits, sheet, window


SHARES = (0.0, 0.02, 0.08, 0.3, 1.0)
"""Times that are shown, as shares of the whole: what spreads is fastest at first."""


def draw(scene: Scene) -> Figure | None:
    """The trajectory of median error of the test that lasts longest; none where the data have no graph."""
    graph = scene.spec.graph
    if graph is None:
        return None
    name, longest = scene.longest
    row = int(np.argsort(longest.mse)[(len(longest.mse) - 1) // 2])
    places = host(graph.places)
    edges: Array = places[np.argwhere(np.triu(host(graph.adjacency)))]
    times = [round(share * (len(longest.ts) - 1)) for share in SHARES]
    some = "" if scene.spec.numel == len(places) else ", first feature of each"
    about = f"{scene.spec.dataset}: nodes over time{some}, {name}, median of {len(longest.mse)}"
    figure = sheet(2.1 * len(times) + 0.9, 4.9, f"{about}, mse {figure_of(float(longest.mse[row]))}")
    grid = figure.subplots(2, len(times))
    for panels, time in zip(grid.T, times, strict=True):
        true, learned = (states[row, time].reshape(len(places), -1)[:, 0] for states in (longest.true, longest.learned))
        # A range for each time: what has nearly levelled out is still to be told apart.
        colours = Normalize(*limits(np.concatenate((true, learned)), margin=0.02))
        for axes, values in zip(panels, (true, learned), strict=True):
            nodes = _nodes(axes, places, edges, values, colours)
        panels[0].set_title(f"t = {figure_of(float(longest.ts[time]))}")
        bar = figure.colorbar(nodes, ax=panels, location="bottom", shrink=0.85, aspect=14, pad=0.03, label="state")
        bar.locator = MaxNLocator(3)
        bar.update_ticks()
    for axes, label in zip(grid[:, 0], ("true", "learned"), strict=True):
        axes.set_ylabel(label)
    return figure


def _nodes(axes: Axes, places: Array, edges: Array, values: Array, colours: Normalize) -> PathCollection:
    """The nodes in the colours of their values (n,), crosses where these are not finite, and the edges (E, 2, 2)."""
    axes.add_collection(LineCollection(list(edges), colors="0.8", linewidths=0.9, zorder=1))
    lost = ~np.isfinite(values)
    axes.plot(*places[lost].T, "x", color="0.3", markersize=5)
    xlim, ylim = window(places)
    axes.set(xlim=xlim, ylim=ylim, xticks=[], yticks=[])
    axes.set_box_aspect(1)
    axes.spines[:].set_visible(False)
    x, y = places[~lost].T
    return axes.scatter(x, y, 52, values[~lost], cmap=DENSITY, norm=colours, edgecolors="0.3", linewidths=0.5, zorder=2)
