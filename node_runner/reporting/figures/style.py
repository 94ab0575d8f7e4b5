"""How every figure looks: sizes, colours that colour-blind readers can tell apart, and numbers in titles."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray


RC: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "axes.titlepad": 5,
    "axes.linewidth": 0.7,
    "axes.edgecolor": "0.35",
    "axes.labelcolor": "0.15",
    "axes.axisbelow": True,
    "figure.titlesize": 10.5,
    "figure.titleweight": "bold",
    "figure.dpi": 120,
    "figure.facecolor": "white",
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.color": "0.35",
    "ytick.color": "0.35",
    "lines.linewidth": 1.5,
    "lines.solid_capstyle": "round",
}

# Okabe and Ito, Color universal design, 2008.
TRUE, LEARNED, BEYOND = "0.65", "#0072B2", "#D55E00"
SHADE = "#F4EFE6"
"""Behind times that no training trajectory reaches."""

PALETTE = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#8C8C8C", "#000000", "#5D3A9B",
)  # fmt: skip
Range = tuple[float, float]
DENSITY = "viridis"
COUNTS = "Blues"


@contextmanager
def style() -> Iterator[None]:
    """Within this block figures are made in the style of node-runner; the reader's own settings come back after it."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(RC)
        yield


def sheet(width: float, height: float, title: str) -> Figure:
    """An empty figure, `width` by `height` inches, under a title on the left."""
    figure = Figure(figsize=(width, height), layout="constrained")
    headline(figure, title)
    return figure


def headline(figure: Figure, title: str) -> None:
    """The title of a figure, on the left, in smaller letters where it would not fit."""
    text = figure.suptitle(title, x=0.01, ha="left")
    room = 0.97 * figure.bbox.width
    taken = text.get_window_extent().width
    if taken > room:
        text.set_fontsize(RC["figure.titlesize"] * room / taken)


def clean(axes: Axes, *, grid: bool = False) -> Axes:
    """Take the frame's upper and right side away, and draw a faint grid where it helps to read values."""
    axes.spines[["top", "right"]].set_visible(False)
    if grid:
        axes.grid(True, color="0.9", linewidth=0.6)
    return axes


def legend_below(figure: Figure, panels: Iterable[Axes]) -> None:
    """One legend for all panels, each label once."""
    entries = {
        label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=len(entries))


def class_colours(count: int) -> NDArray[np.float64]:
    """(count, 3) colours of classes: the palette, or a colour map where it is too small."""
    if count <= len(PALETTE):
        return np.array([to_rgb(colour) for colour in PALETTE[:count]])
    return np.asarray(mpl.colormaps["turbo"](np.linspace(0.05, 0.95, count)))[:, :3]


def limits(values: NDArray[np.float64], margin: float = 0.08, tails: float = 0.0) -> tuple[float, float]:
    """A range that holds the finite values, but for a share of `tails` at either end, with some room around it."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return (-1.0, 1.0)
    low, high = (float(x) for x in np.quantile(finite, (tails, 1 - tails)))
    room = margin * (high - low) or 0.5 * abs(low) or 1.0
    return (low - room, high + room)


def square(points: NDArray[np.float64], margin: float = 0.08) -> tuple[Range, Range]:
    """The ranges of both axes, equally long, that hold points (N, 2)."""
    (left, right), (low, high) = limits(points[:, 0], margin), limits(points[:, 1], margin)
    x, y, reach = (left + right) / 2, (low + high) / 2, max(right - left, high - low) / 2
    return (x - reach, x + reach), (y - reach, y + reach)


def window(points: NDArray[np.float64], tails: float = 0.0) -> tuple[Range, Range]:
    """The ranges of both axes that hold points (N, 2)."""
    return limits(points[:, 0], tails=tails), limits(points[:, 1], tails=tails)


def planar(axes: Axes, x: Range, y: Range, names: Sequence[str]) -> Axes:
    """Make `axes` a map of the plane: named axes, of one scale where the two ranges are alike."""
    axes.set(xlim=x, ylim=y, xlabel=names[0], ylabel=names[1])
    axes.set_box_aspect(height(x, y))
    return axes


def height(x: Range, y: Range) -> float:
    """Height of a map of the plane by its width: that of the ranges, or 1 where they are too different."""
    ratio = (y[1] - y[0]) / (x[1] - x[0])
    return ratio if 0.5 < ratio < 1.6 else 1.0


def figure_of(value: float) -> str:
    """A number for a title: three digits, an exponent only where it is small or large."""
    if not math.isfinite(value):
        return "not finite"
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.3g}"
    return f"{value:.1e}"
