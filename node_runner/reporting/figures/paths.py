"""Paths, what is seen of them, and how sure the model is of their class."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from node_runner.batches import PathBatch
from node_runner.reporting.figures.scene import Array, Scene, host
from node_runner.reporting.figures.style import TRUE, class_colours, clean, sheet, square
from node_runner.tasks.paths import path_batch


Flags = NDArray[np.bool_]

COLUMNS, MOST_AXES = 4, 4
"""Paths and axes that are shown."""


def draw(scene: Scene) -> Figure:
    """Paths above, the probability of each class below; of models that say how a verdict forms, over time.

    Two paths of which the model is surest and two of which it is most wrongly sure, or least sure where it makes no
    mistakes. Those of two axes that are mostly observed together are drawn in the plane, others over time, a panel an
    axis.
    """
    names, where = scene.axis_names[:MOST_AXES], scene.series.seen
    plane = scene.spec.shape == (2,) and 2 * int(where.all(dim=2).sum()) > int(where.any(dim=2).sum())
    labels = scene.examples.y.cpu().numpy()
    predicted = scene.probabilities.argmax(axis=1)
    own = scene.probabilities[np.arange(len(labels)), labels]
    order = np.argsort(own, kind="stable")
    rows = [*order[::-1][: COLUMNS // 2], *order[: COLUMNS // 2]]
    batch = path_batch(scene.series, torch.as_tensor(np.array(rows), device=scene.series.device))
    shares = _shares(scene, batch, scene.probabilities[rows])
    colours, classes = class_colours(scene.spec.num_classes), scene.spec.class_names
    heights = (1.7, 1) if plane else (1,) * (len(names) + 1)
    figure = sheet(2.5 * len(rows) + 0.4, 1.75 * sum(heights) + 0.3, f"{scene.spec.dataset}: {scene.accuracy}")
    grid = figure.subplots(len(heights), len(rows), height_ratios=heights, squeeze=False)
    for place, row in enumerate(rows):
        ts, values = host(batch.times[:, place]), host(batch.values[:, place])
        seen = batch.seen[:, place].cpu().numpy()
        if plane:
            shown = _in_the_plane(clean(grid[0, place]), ts, values, seen)
        else:
            for axis in range(len(names)):
                _over_time(clean(grid[axis, place]), ts, values[:, axis], seen[:, axis])
        verdict = "right" if predicted[row] == labels[row] else f"taken for class {classes[predicted[row]]}"
        grid[0, place].set_title(f"class {classes[labels[row]]}, {verdict}\n{own[row]:.1%} for its class")
        lower = clean(grid[-1, place])
        for kind, colour in enumerate(colours):
            lower.plot(ts, shares[:, place, kind], color=colour, label=f"class {classes[kind]}")
        lower.set(ylim=(-0.03, 1.03), xlabel=scene.spec.clock)
    grid[-1, 0].set_ylabel("probability")
    handles, texts = grid[-1, 0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside lower center", ncols=len(texts))
    if plane:
        grid[0, 0].set(xlabel=names[0], ylabel=names[1])
        figure.colorbar(shown, ax=grid[0, :], label="time of observation", shrink=0.8)
    else:
        for axis, name in enumerate(names):
            grid[axis, 0].set_ylabel(name)
    return figure


def _in_the_plane(axes: Axes, ts: Array, values: Array, seen: Flags) -> PathCollection:
    """Where both axes (T, 2) were observed, coloured by time (T,)."""
    whole = seen.all(axis=1)
    points = values[whole]
    axes.plot(*points.T, color=TRUE, linewidth=0.8)
    shown = axes.scatter(
        points[:, 0], points[:, 1], c=ts[whole], cmap="viridis", s=14, linewidths=0, zorder=3, vmin=ts[0], vmax=ts[-1]
    )
    x, y = square(points, margin=0.1)
    axes.set(xlim=x, ylim=y)
    axes.set_aspect("equal")
    return shown


def _over_time(axes: Axes, ts: Array, values: Array, seen: Flags) -> None:
    """What was observed of one axis (T,), a dot each."""
    axes.plot(ts[seen], values[seen], ".-", color=TRUE, linewidth=0.8, markersize=5, markeredgewidth=0)
    axes.set_xlim(ts[0] - 0.03 * np.ptp(ts), ts[-1] + 0.03 * np.ptp(ts))


def _shares(scene: Scene, batch: PathBatch, final: Array) -> Array:
    """(T, N, C) probabilities over time: as they form, or the last ones throughout."""
    if not hasattr(scene.model, "verdicts"):
        return np.broadcast_to(final, (len(batch.ts), *final.shape))
    with torch.no_grad():
        logits: torch.Tensor = scene.model.verdicts(batch.ts, batch.values, batch.seen)
        return host(logits.softmax(dim=-1))
