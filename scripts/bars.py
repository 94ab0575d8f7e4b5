"""A bar a contestant: the figure of benchmarks that measure one number of each."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from node_runner.reporting.figures.style import PALETTE, clean, sheet, style


def bars(
    names: Sequence[str], values: Sequence[float], *, title: str, unit: str, height: float, scale: str = "linear"
) -> Figure:
    """Horizontal bars, the first one uppermost, on a sheet of this height in inches."""
    with style():
        figure = sheet(7, height, title)
        axes = clean(figure.subplots())
        axes.barh(names, values, color=PALETTE[0], height=0.6)
        axes.invert_yaxis()
        axes.set_xscale(scale)
        axes.set_xlabel(unit)
    return figure
