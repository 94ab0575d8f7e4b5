"""Paths, what is seen of them, and how sure the model is of their class."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure

from node_runner.reporting.figures.scene import Array, Scene, host
from node_runner.reporting.figures.style import TRUE, class_colours, clean, limits, sheet
from node_runner.reporting.figures.trajectories import axis_names
from node_runner.tasks.paths import path_batch
from node_runner.views import PathBatch


COLUMNS = 4


def draw(scene: Scene) -> Figure | None:
    """Paths in the plane above, the probability of each class below; of models that say how a verdict forms, over time.

    Two paths of which the model is surest and two of which it is most wrongly sure, or least sure where it makes no
    mistakes. None where the state has other than two axes.
    """
    if scene.spec.shape != (2,):
        return None
    labels = scene.examples.y.cpu().numpy()
    predicted = scene.probabilities.argmax(axis=1)
    own = scene.probabilities[np.arange(len(labels)), labels]
    order = np.argsort(own, kind="stable")
    rows = [*order[::-1][: COLUMNS // 2], *order[: COLUMNS // 2]]
    batch = path_batch(scene.series, torch.as_tensor(np.array(rows), device=scene.series.ys.device))
    shares = _shares(scene, batch, scene.probabilities[rows])
    colours, classes = class_colours(scene.spec.num_classes), scene.spec.class_names
    figure = sheet(2.5 * len(rows) + 0.4, 5.0, f"{scene.spec.dataset}: {scene.accuracy}")
    grid = figure.subplots(2, len(rows), height_ratios=(1.7, 1), squeeze=False)
    ts = host(batch.ts)
    for place, row in enumerate(rows):
        seen = batch.seen[:, place].all(dim=1).cpu().numpy()
        points = host(batch.values[:, place])[seen]
        upper, lower = clean(grid[0, place]), clean(grid[1, place])
        upper.plot(*points.T, color=TRUE, linewidth=0.8)
        shown = upper.scatter(
            points[:, 0], points[:, 1], c=ts[seen], cmap="viridis", s=14, linewidths=0, zorder=3,
            vmin=ts[0], vmax=ts[-1],
        )  # fmt: skip
        (left, right), (low, high) = limits(points[:, 0], 0.1), limits(points[:, 1], 0.1)
        x, y, reach = (left + right) / 2, (low + high) / 2, max(right - left, high - low) / 2
        upper.set(xlim=(x - reach, x + reach), ylim=(y - reach, y + reach))
        upper.set_aspect("equal")
        verdict = "right" if predicted[row] == labels[row] else f"taken for class {classes[predicted[row]]}"
        upper.set_title(f"class {classes[labels[row]]}, {verdict}\n{own[row]:.1%} for its class")
        for kind, colour in enumerate(colours):
            lower.plot(ts, shares[:, place, kind], color=colour, label=f"class {classes[kind]}")
        lower.set(ylim=(-0.03, 1.03), xlabel="time")
    names = axis_names(scene)
    grid[0, 0].set(xlabel=names[0], ylabel=names[1])
    grid[1, 0].set_ylabel("probability")
    handles, texts = grid[1, 0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside lower center", ncols=len(texts))
    figure.colorbar(shown, ax=grid[0, :], label="time of observation", shrink=0.8)
    return figure


def _shares(scene: Scene, batch: PathBatch, final: Array) -> Array:
    """(T, N, C) probabilities over time: as they form, or the last ones throughout."""
    if not hasattr(scene.model, "verdicts"):
        return np.broadcast_to(final, (len(batch.ts), *final.shape))
    with torch.no_grad():
        logits: torch.Tensor = scene.model.verdicts(batch.ts, batch.values, batch.seen)
        return host(logits.softmax(dim=-1))
