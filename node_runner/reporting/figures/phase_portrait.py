"""The vector field that was learned, beside the true one, with trajectories of both."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from torch import Tensor, as_tensor

from node_runner.reporting.figures.horizon import beyond
from node_runner.reporting.figures.scene import Array, Prediction, Scene, host, plane
from node_runner.reporting.figures.style import (
    BEYOND,
    DENSITY,
    LEARNED,
    TRUE,
    Range,
    clean,
    height,
    legend_below,
    planar,
    sheet,
    window,
)


MOST, SIZE, STREAMS = 4, 60, 0.7
"""Trajectories that are shown, points of the field along each axis, and how dense its stream lines are."""


def draw(scene: Scene) -> Figure | None:
    """True field, learned field and their distance; only trajectories, on two axes, where the state is not planar."""
    if scene.spec.numel < 2:
        return None
    x, y = window(np.concatenate([p.true[..., :2].reshape(-1, 2) for p in scene.predictions.values()]))
    points = plane(x, y, SIZE)
    true, learned = true_field(scene, points), learned_field(scene, points)
    both = true is not None and learned is not None
    figure = sheet(12.2 if both else 8.2, 3.15 * height(x, y) + 1.2, title(scene))
    grid = figure.subplots(1, 3 if both else 2)
    starts = scene.predictions["train"].true[:, 0]
    gaps = any(np.isnan(prediction.true[row]).any() for prediction, row in _choose(scene))
    for axes, (name, field) in zip(grid, (("true", true), ("learned", learned)), strict=False):
        if field is not None:
            _stream(axes, x, y, field)
        for prediction, row in _choose(scene):
            _path(axes, prediction, row, scene.horizon, learned=name == "learned")
        axes.plot(starts[:, 0], starts[:, 1], "+", color="0.1", markersize=5, label="training starts")
        note = _slice(scene) if field is not None and name == "learned" else ""
        kind = "observed" if name == "true" and field is None and gaps else name
        axes.set_title(f"{kind} {'field and ' if field is not None else ''}trajectories{note}")
    if true is not None and learned is not None:
        _distance(figure, grid[2], x, y, np.linalg.norm(learned - true, axis=1))
        states = scene.predictions["train"].true.reshape(-1, 2)
        states = states[:: max(1, len(states) // 1500)]
        grid[2].plot(states[:, 0], states[:, 1], ".", color="white", markersize=2.4, alpha=0.5, markeredgewidth=0)
        grid[2].set_title("distance of the two fields, training states dotted")
    for axes in grid:
        planar(clean(axes), x, y, scene.axis_names)
    legend_below(figure, grid[:2])
    return figure


def title(scene: Scene) -> str:
    """What is shown, with the median relative distance of the fields at the training states."""
    heading = f"{scene.spec.dataset}: phase portrait"
    if scene.spec.numel > 2:
        return f"{heading}, first two of {scene.spec.numel} axes"
    states = as_tensor(scene.predictions["train"].true.reshape(-1, 2))
    states = states[~states.isnan().any(dim=1)]
    learned, true = learned_field(scene, states), true_field(scene, states)
    # The slice of an augmented field at zero is not what carries its trajectories: no number for it.
    if learned is None or true is None or _augmented(scene):
        return heading
    share = np.linalg.norm(learned - true, axis=1) / np.linalg.norm(true, axis=1)
    if not np.isfinite(share).any():
        return heading
    return f"{heading}, learned field off by {np.nanmedian(share):.2%} (median over the training states)"


def learned_field(scene: Scene, y: Tensor) -> Array | None:
    """The model's dy/dt (N, 2) at y (N, 2) and the first time; None where it has no field in the plane."""
    field = getattr(scene.model, "vector_field", None)
    if field is None or scene.spec.numel != 2:
        return None
    t = scene.to_model(scene.splits.train.ts[0])
    return scene.evaluate(lambda part: field(t, part), y)


def true_field(scene: Scene, y: Tensor) -> Array | None:
    """The data set's dy/dt (N, 2) at y (N, 2) and the first time, where it is known and planar."""
    field = getattr(scene.dataset, "vector_field", None)
    if field is None or scene.spec.numel != 2:
        return None
    return host(as_tensor(field(scene.splits.train.ts[0].cpu().double(), y)))


def _choose(scene: Scene) -> list[tuple[Prediction, int]]:
    """A few test trajectories, the longest first."""
    parts = [prediction for _, prediction in scene.tests][::-1]
    return [(part, row) for part in parts for row in range(len(part.true))][:MOST]


def _augmented(scene: Scene) -> bool:
    return bool(getattr(getattr(scene.model, "block", None), "augment", 0))


def _slice(scene: Scene) -> str:
    """Where a field with further arguments is cut."""
    notes = ["augmented axes at 0"] if _augmented(scene) else []
    if getattr(getattr(getattr(scene.model, "block", None), "field", None), "time_dependent", False):
        notes.append(f"t = {float(scene.predictions['train'].ts[0]):g}")
    return f" ({', '.join(notes)})" if notes else ""


def _stream(axes: Axes, x: Range, y: Range, field: Array) -> None:
    u, v = np.ma.masked_invalid(field.reshape(SIZE, SIZE, 2)).transpose(2, 0, 1)
    across, up = np.linspace(*x, SIZE), np.linspace(*y, SIZE)
    axes.streamplot(across, up, u, v, density=STREAMS, color="0.75", linewidth=0.6, arrowsize=0.6, zorder=1)


def _path(axes: Axes, prediction: Prediction, row: int, horizon: float, *, learned: bool) -> None:
    true, model = prediction.true[row], prediction.learned[row]
    if np.isnan(true).any():
        axes.plot(
            true[:, 0], true[:, 1], ".", color="0.5", markersize=3.5, markeredgewidth=0, label="observed", zorder=2
        )
    else:
        axes.plot(true[:, 0], true[:, 1], color=TRUE, linewidth=2.6 if learned else 1.4, label="true", zorder=2)
    if not learned:
        return
    later = beyond(prediction.ts, horizon)
    inside = ~later
    later[inside.sum() - 1] = True  # so that the two pieces touch
    axes.plot(model[inside, 0], model[inside, 1], color=LEARNED, linewidth=1.2, label="learned", zorder=4)
    if not inside.all():
        label = "learned, beyond the training horizon"
        axes.plot(model[later, 0], model[later, 1], color=BEYOND, linewidth=1.2, label=label, zorder=3)


def _distance(figure: Figure, axes: Axes, x: Range, y: Range, distance: Array) -> None:
    finite = distance[np.isfinite(distance)]
    low, high = np.quantile(finite, (0.02, 1.0)) if len(finite) else (0.0, 0.0)
    norm = LogNorm(low, high) if 0 < low < high else None
    drawn = axes.imshow(
        distance.reshape(SIZE, SIZE), origin="lower", extent=(*x, *y), cmap=DENSITY, norm=norm,
        interpolation="bilinear", aspect="auto",
    )  # fmt: skip
    figure.colorbar(drawn, ax=axes, shrink=0.8, label="|learned - true dy/dt|")
