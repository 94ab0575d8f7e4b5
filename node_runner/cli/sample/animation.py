"""GIFs of what `node-run sample` makes: a flow from its base to the data, or states that move in the plane."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.figure import Figure

from node_runner.cli.arrays import Array
from node_runner.reporting.figures.flow import by_direction
from node_runner.reporting.figures.samples import mosaic, picture, shades
from node_runner.reporting.figures.style import PALETTE, clean, height, planar, sheet, style, window


FRAMES, PER_SECOND = 40, 20
MOVING, IMAGES = 2000, 36
"""Points and images that are shown on their way at the most."""

TAIL = 0.15
"""Share of the whole time that a moving state draws behind it."""


def animate_points(paths: Array, labels: Sequence[str], dataset: str, file: Path) -> None:
    """Points (frames, N, D >= 2) on their way from the base to the data, in the colour of where they began."""
    paths = paths[..., :2]
    x, y = window(np.concatenate([paths[0], paths[-1]]), tails=0.002)
    with style():
        figure = sheet(4.4, 4.0 * height(x, y) + 0.8, f"{dataset}: from the base to the data")
        axes = clean(figure.subplots())
        planar(axes, x, y, labels)
        drawn = axes.scatter(paths[0, :, 0], paths[0, :, 1], s=3, c=by_direction(paths[0]), linewidths=0)

        def show(frame: int) -> None:
            drawn.set_offsets(paths[frame])
            axes.set_title(f"{frame / (len(paths) - 1):.0%} of the way", fontsize="small")

        _write(figure, show, len(paths), file)


def animate_images(paths: Array, shape: tuple[int, ...], levels: int, dataset: str, file: Path) -> None:
    """Images (frames, N, P) on their way from noise to digits, say."""
    with style():
        figure = sheet(4.2, 4.6, f"{dataset}: from noise to images")
        axes = figure.subplots()
        picture(axes, mosaic(shades(paths[0], levels), shape), ())
        (drawn,) = axes.get_images()

        def show(frame: int) -> None:
            drawn.set_data(mosaic(shades(paths[frame], levels), shape))
            axes.set_title(f"{frame / (len(paths) - 1):.0%} of the way", fontsize="small")

        _write(figure, show, len(paths), file)


def animate_trajectories(ts: Array, ys: Array, labels: Sequence[str], dataset: str, file: Path) -> None:
    """States (N, T, D >= 2) that move in the plane of the first two axes, each with a tail."""
    shown = np.linspace(0, len(ts) - 1, min(len(ts), 2 * FRAMES)).round().astype(int)
    plane = ys[..., :2]
    x, y = window(plane.reshape(-1, 2))
    tail = max(1, round(TAIL * len(ts)))
    with style():
        figure = sheet(4.4, 4.0 * height(x, y) + 0.8, f"{dataset}: predicted trajectories")
        axes = clean(figure.subplots())
        planar(axes, x, y, labels)
        colours = [PALETTE[row % len(PALETTE)] for row in range(len(plane))]
        heads = axes.scatter(plane[:, 0, 0], plane[:, 0, 1], s=22, c=colours, zorder=3)
        tails = [axes.plot([], [], color=colour)[0] for colour in colours]

        def show(frame: int) -> None:
            at = shown[frame]
            heads.set_offsets(plane[:, at])
            for line, path in zip(tails, plane, strict=True):
                line.set_data(*path[max(0, at - tail) : at + 1].T)
            axes.set_title(f"t = {ts[at]:.2f}", fontsize="small")

        _write(figure, show, len(shown), file)


def _write(figure: Figure, show: Callable[[int], None], frames: int, file: Path) -> None:
    """Write a GIF whose first and last frames are held for a second."""
    held = [0] * PER_SECOND + list(range(frames)) + [frames - 1] * PER_SECOND
    file.parent.mkdir(parents=True, exist_ok=True)
    draw: Any = show
    FuncAnimation(figure, draw, frames=held).save(file, writer=PillowWriter(PER_SECOND), dpi=80)
