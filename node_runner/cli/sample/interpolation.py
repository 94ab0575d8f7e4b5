"""Between two points of the data, through a flow's base, or two series, through a latent space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor, nn

from node_runner.cli.arrays import Array
from node_runner.reporting.figures.samples import picture, shades
from node_runner.reporting.figures.style import PALETTE, clean, planar, sheet, style, window
from node_runner.tasks.series import series_batch
from node_runner.views import Series


STEPS, PAIRS = 9, 6
FINE = 101
"""Steps of a path in the plane, which is drawn as a line."""


def interpolate(model: Any, starts: Tensor, ends: Tensor, steps: int) -> Tensor:
    """(steps, N, D) from `starts` to `ends` (N, D), both included: the images of great circles in the base."""
    a, b = model.to_base(starts), model.to_base(ends)
    shares = torch.linspace(0, 1, steps, dtype=a.dtype, device=a.device)
    return torch.stack([model.from_base(great_circle(a, b, share)) for share in shares])


def great_circle(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """From a to b (N, D) along the arc between their directions, the length changing evenly.

    In many dimensions a straight line leaves the shell at distance sqrt(D) where a standard normal has its points.

    Source: White, Sampling Generative Networks (2016), section 2.
    """
    length_a, length_b = a.norm(dim=1, keepdim=True), b.norm(dim=1, keepdim=True)
    tiny = torch.finfo(a.dtype).tiny
    one, other = a / length_a.clamp(min=tiny), b / length_b.clamp(min=tiny)
    # By half angles, which is accurate for small and for large angles.
    angle = 2 * torch.atan2((one - other).norm(dim=1, keepdim=True), (one + other).norm(dim=1, keepdim=True))
    sine = angle.sin()
    near = sine < 1e-4 if a.dtype is torch.float32 else sine < 1e-9
    weights = (((1 - share) * angle).sin() / sine, (share * angle).sin() / sine)
    direction = torch.where(near, torch.lerp(one, other, share), weights[0] * one + weights[1] * other)
    return torch.lerp(length_a, length_b, share) * direction


def interpolate_series(model: Any, series: Series, steps: int) -> Tensor:
    """(steps, N, T, D) from the first half of 2 N series to the second, at the times of their grid.

    Lines between the means of their posteriors, which need no shell to keep to.
    """
    batch = series_batch(series, series.rows())
    mean, _ = model.posterior(batch.ts, batch.values, batch.seen)
    starts, ends = mean.chunk(2)
    shares = torch.linspace(0, 1, steps, dtype=mean.dtype, device=mean.device)
    return torch.stack(
        [model.decode(model.trajectory(torch.lerp(starts, ends, s), series.grid)).transpose(0, 1) for s in shares]
    )


def draw_series(paths: Array, ts: Array, labels: Sequence[str], clock: str, dataset: str) -> Figure:
    """Paths (steps, N, T, D): a panel a pair, in the plane where there are two axes, else the first one over time."""
    steps, pairs = paths.shape[:2]
    plane = paths.shape[3] == 2
    with style():
        columns = min(3, pairs)
        rows = -(-pairs // columns)
        title = f"{dataset}: from one test series to another, through the latent space"
        figure = sheet(3.0 * columns + 0.6, 2.7 * rows + 0.9, title)
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes in grid.flat[pairs:]:
            axes.set_axis_off()
        colours = mpl.colormaps["viridis"](np.linspace(0, 0.95, steps))
        for pair, axes in zip(range(pairs), grid.flat, strict=False):
            for path, colour in zip(paths[:, pair], colours, strict=True):
                axes.plot(*(path.T if plane else (ts, path[:, 0])), color=colour, linewidth=1.2)
            clean(axes).set(xlabel=labels[0] if plane else clock, ylabel=labels[1] if plane else labels[0])
        scale = ScalarMappable(Normalize(0, 1), "viridis")
        figure.colorbar(scale, ax=grid, label="from the one to the other", shrink=0.7)
        return figure


def draw_interpolations(
    paths: Array, data: Array, labels: Sequence[str], image: tuple[int, ...], levels: int, dataset: str
) -> Figure:
    """Paths (steps, N, D): a row of images each, or lines in the plane over the data (M, D)."""
    with style():
        if image:
            steps, rows = paths.shape[:2]
            title = f"{dataset}: from one test image to another, through the base"
            figure = sheet(0.85 * steps + 0.3, 0.85 * rows + 0.5, title)
            grid = figure.subplots(rows, steps, squeeze=False)
            for row in range(rows):
                for step in range(steps):
                    picture(grid[row, step], shades(paths[step, row], levels), image)
            return figure
        figure = sheet(5.0, 4.6, f"{dataset}: between test points, through the base")
        axes = clean(figure.subplots())
        axes.plot(*data[:, :2].T, ".", color="0.8", markersize=2.5, markeredgewidth=0)
        for row in range(paths.shape[1]):
            colour = PALETTE[row % len(PALETTE)]
            axes.plot(*paths[:, row, :2].T, color=colour)
            axes.plot(*paths[[0, -1], row, :2].T, "o", color=colour, markersize=4)
        x, y = window(data[:, :2], tails=0.001)
        planar(axes, x, y, labels)
        return figure


def can_interpolate(model: nn.Module) -> bool:
    """Whether a model maps data to a base or a latent space, and back."""
    return hasattr(model, "from_base") or (hasattr(model, "posterior") and hasattr(model, "decode"))
