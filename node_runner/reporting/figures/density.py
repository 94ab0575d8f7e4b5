"""The density that was learned: data, samples, and the density itself."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from node_runner.reporting.figures.scene import Array, Scene, host, plane
from node_runner.reporting.figures.style import (
    BEYOND,
    DENSITY,
    LEARNED,
    Range,
    clean,
    figure_of,
    height,
    limits,
    planar,
    sheet,
    window,
)


SIZE = 100


def draw(scene: Scene) -> Figure | None:
    """Data, samples and density side by side; samples only beyond two dimensions, and none of it for images."""
    if scene.spec.image:
        return None
    data = host(scene.splits.test.x[: len(scene.paths[-1])])
    if scene.spec.numel == 1:
        return _on_a_line(scene, data)
    x, y = window(data[:, :2], tails=0.001)
    densities = _densities(scene, x, y) if scene.spec.numel == 2 else {}
    figure = sheet(2.9 * (2 + len(densities)) + 1.1 * bool(densities), 2.4 * height(x, y) + 1.05, title(scene))
    grid = figure.subplots(1, 2 + len(densities), squeeze=False)[0]
    _scatter(grid[0], data, f"test data, {len(data):,} points")
    _scatter(grid[1], scene.paths[-1][: len(data)], f"samples of the model, {len(data):,} points")
    top = max((_top(density) for density in densities.values()), default=1.0)
    for axes, (name, density) in zip(grid[2:], densities.items(), strict=True):
        drawn = axes.imshow(
            density.reshape(SIZE, SIZE), origin="lower", extent=(*x, *y), cmap=DENSITY, vmin=0, vmax=top,
            interpolation="bilinear", aspect="auto",
        )  # fmt: skip
        axes.set_title(name)
    for axes in grid:
        planar(axes, x, y, scene.axis_names)
    if densities:
        figure.colorbar(drawn, ax=grid[-1], shrink=0.8, label="probability per unit area")
    return figure


def title(scene: Scene) -> str:
    """What is shown, with the negative log-likelihood of the test and the best that any model could reach."""
    text = f"{scene.spec.dataset}: data and learned density"
    nll = scene.measured("test/nll")
    if nll is not None:
        text += f", test nll {figure_of(nll)} nats"
    true = true_log_prob(scene, scene.splits.test.x.cpu().double())
    if true is not None and np.isfinite(true).all():
        text += f" (true density: {figure_of(-float(true.mean()))}"
        text += ")" if scene.spec.entropy is None else f", its entropy: {figure_of(scene.spec.entropy)})"
    return text


def true_log_prob(scene: Scene, x: Tensor) -> Array | None:
    """The data set's own log-density (N,) at x (N, D), minus infinity where there are no data; None where unknown."""
    log_prob = getattr(scene.dataset, "log_prob", None)
    value = None if log_prob is None else log_prob(x)
    return None if value is None else value.detach().cpu().numpy()


def _densities(scene: Scene, x: Range, y: Range) -> dict[str, Array]:
    points = plane(x, y, SIZE)
    found = {"density of the model": np.exp(scene.evaluate(scene.log_prob, points))}
    true = true_log_prob(scene, points)
    if true is not None:
        found["true density"] = np.exp(true)
    return found


def _top(density: Array) -> float:
    """Where the colours end: a spike of the density may stand out above it."""
    finite = density[np.isfinite(density)]
    return float(np.quantile(finite, 0.998)) if len(finite) else 1.0


def _scatter(axes: Axes, points: Array, name: str) -> None:
    size = 1.8 if len(points) > 2000 else 3.0
    axes.plot(points[:, 0], points[:, 1], ".", color="0.1", markersize=size, alpha=0.5, markeredgewidth=0)
    axes.set_title(name)


def _on_a_line(scene: Scene, data: Array) -> Figure:
    figure = sheet(6.4, 3.8, title(scene))
    axes = clean(figure.subplots())
    low, high = limits(data, tails=0.001)
    bins = np.linspace(low, high, 60).tolist()
    axes.hist(data[:, 0], bins, density=True, color="0.8", label="test data")
    samples = scene.paths[-1][:, 0]
    axes.hist(samples[np.isfinite(samples)], bins, density=True, histtype="step", color=LEARNED, label="samples")
    points = torch.linspace(low, high, 400, dtype=torch.float64).unsqueeze(1)
    axes.plot(points[:, 0], np.exp(scene.evaluate(scene.log_prob, points)), color=BEYOND, label="learned density")
    axes.set(xlabel=scene.axis_names[0], ylabel="probability per unit", xlim=(low, high))
    axes.legend()
    return figure
