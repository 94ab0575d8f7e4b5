"""Images that a model makes up, beside real ones."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from node_runner.reporting.figures.scene import IMAGES, Array, Scene, host
from node_runner.reporting.figures.style import figure_of, sheet


def draw(scene: Scene) -> Figure | None:
    """A square of samples beside a square of test images; None where the points are no images."""
    if not scene.spec.image:
        return None
    bits = scene.measured("test/bits_per_dim")
    number = "" if bits is None else f", test {figure_of(bits)} bits/dim"
    figure = sheet(8.4, 4.7, f"{scene.spec.dataset}: samples of the model and real images{number}")
    left, right = figure.subplots(1, 2)
    picture(left, mosaic(shades(scene.paths[-1], scene.spec.levels), scene.spec.image), ())
    left.set_title(f"samples of the model ({len(scene.paths[-1])})")
    real = host(scene.splits.test.x[:IMAGES])
    picture(right, mosaic(shades(real, scene.spec.levels), scene.spec.image), ())
    right.set_title(f"test images ({len(real)})")
    return figure


def shades(images: Array, levels: int) -> Array:
    """Grey levels 0..levels-1 from black, 0, to white, 1. A flow has level k as the numbers from k to k + 1."""
    found: Array = np.clip(np.floor(images), 0, levels - 1) / (levels - 1)
    return found


def mosaic(images: Array, shape: tuple[int, ...]) -> Array:
    """N images (N, P) of `shape` (channels, height, width) side by side in a square, one pixel apart.

    Returns:
        (H, W, channels) in [0, 1], or (H, W) for one channel; NaN between the images.
    """
    channels, height, width = shape
    side = math.ceil(math.sqrt(len(images)))
    canvas = np.full((side * (height + 1) + 1, side * (width + 1) + 1, channels), np.nan)
    for place, image in enumerate(images):
        row, column = (1 + at * (size + 1) for at, size in zip(divmod(place, side), (height, width), strict=True))
        canvas[row : row + height, column : column + width] = image.reshape(shape).transpose(1, 2, 0)
    return canvas[..., 0] if channels == 1 else canvas


def picture(axes: Axes, image: Array, shape: tuple[int, ...]) -> None:
    """Show an image: pixels (P,) of `shape` (channels, height, width), or a finished mosaic (shape empty)."""
    if shape:
        image = image.reshape(shape).transpose(1, 2, 0)
        image = image[..., 0] if shape[0] == 1 else image
    axes.imshow(np.clip(image, 0, 1), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
