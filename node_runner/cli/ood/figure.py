"""Log-densities of test and foreign points, and how well they tell them apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from matplotlib.figure import Figure

from node_runner.cli.arrays import Array
from node_runner.cli.ood.roc import area, roc
from node_runner.reporting.figures.style import PALETTE, clean, figure_of, sheet, style


LOWEST = 0.005
"""Quantile at which the tail of a histogram is cut."""


class LogDensities(Protocol):
    """What is drawn of one sample."""

    @property
    def log_prob(self) -> Array: ...
    @property
    def surprise(self) -> Array: ...
    @property
    def atypicality(self) -> Array: ...


def draw_scores(own: LogDensities, scores: Mapping[str, LogDensities], dataset: str) -> Figure:
    """Histograms of the log-densities, and the receiver operating characteristic of both scores."""
    with style():
        figure = sheet(9.4, 4.3, f"{dataset}: what the density makes of other data")
        left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
        bins = _bins([own, *scores.values()])
        left.hist(np.clip(own.log_prob, bins[0], bins[-1]), bins, density=True, color="0.75", label="test")
        for (name, theirs), colour in zip(scores.items(), PALETTE, strict=False):
            clipped = np.clip(theirs.log_prob, bins[0], bins[-1])
            left.hist(clipped, bins, density=True, histtype="step", color=colour, linewidth=1.4, label=name)
            for score, line in (("surprise", "-"), ("atypicality", ":")):
                both = getattr(own, score), getattr(theirs, score)
                label = f"{name}, {'log p' if line == '-' else 'typicality'}: {figure_of(area(*both))}"
                right.plot(*roc(*both), color=colour, linestyle=line, label=label)
        clean(left, grid=True).set(xlabel="log-density in nats, the tails in the last bins", ylabel="share per nat")
        left.legend()
        right.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
        clean(right, grid=True).set(xlabel="test points called foreign", ylabel="foreign points caught")
        right.set(xlim=(-0.01, 1), ylim=(0, 1.01))
        right.legend(title="area under the curve", loc="lower right")
        return figure


def _bins(samples: list[LogDensities]) -> list[float]:
    """Fifty bins that hold the middle of every sample."""
    finite = [sample.log_prob[np.isfinite(sample.log_prob)] for sample in samples]
    ends = [np.quantile(values, (LOWEST, 1 - LOWEST)) for values in finite if len(values)]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    edges: list[float] = np.linspace(low, high if high > low else low + 1, 51).tolist()
    return edges
