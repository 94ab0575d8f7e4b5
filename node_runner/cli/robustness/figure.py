"""Quality against the noise on the inputs, a curve a contestant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from node_runner.cli.measures import HIGHER
from node_runner.reporting.figures.style import class_colours, clean, sheet, style


def draw_robustness(
    dataset: str, metric: str, levels: Sequence[float], results: Mapping[str, NDArray[np.float64]]
) -> Figure:
    """Mean and range over the runs of each contestant.

    Args:
        dataset, metric: names.
        levels: (L,) of the noise.
        results: (runs, L) of each contestant.
    """
    with style():
        figure = sheet(6.6, 4.2, f"{dataset}: noise on the inputs")
        axes = clean(figure.subplots(), grid=True)
        for (name, values), colour in zip(results.items(), class_colours(len(results)), strict=True):
            count = len(values)
            label = name if count == 1 else f"{name}, mean and range of {count}"
            axes.plot(levels, values.mean(axis=0), marker="o", markersize=3.5, color=colour, label=label)
            if count > 1:
                axes.fill_between(levels, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.18, linewidth=0)
        axes.set(xlabel="deviation of the noise, as a share of the training data's", ylabel=f"test/{metric}")
        positive = all((values > 0).all() for values in results.values())
        if metric not in HIGHER and positive:
            axes.set_yscale("log")
        axes.legend()
        return figure
