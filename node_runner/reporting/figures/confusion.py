"""Which class is taken for which."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from node_runner.reporting.figures.scene import Scene
from node_runner.reporting.figures.style import COUNTS, LEARNED, sheet


MOST_NUMBERS = 20
"""Classes up to which every count is written."""

LONGEST = 3
"""Letters of a name that stands level below its column."""


def draw(scene: Scene) -> Figure:
    """Counts of (true, predicted) over the test, coloured by the share of the true class, and the recall of each."""
    counts = confusion(scene)
    size = len(counts)
    totals = np.maximum(counts.sum(axis=1), 1)
    share = counts / totals[:, None]
    recall = np.diag(share)
    side = min(0.42 * size + 2.0, 9.0)
    figure = sheet(max(side + 1.6, 4.6), max(side, 3.2), f"{scene.spec.dataset}: {scene.accuracy}")
    matrix, bars = figure.subplots(1, 2, width_ratios=(size + 1.0, max(0.28 * size, 1.2)), sharey=True)
    shades = PowerNorm(0.5, vmin=0, vmax=1)  # so that a mistake of one in a hundred can be seen
    matrix.imshow(share, cmap=COUNTS, norm=shades, aspect="auto")
    if size <= MOST_NUMBERS:
        for (true, predicted), count in np.ndenumerate(counts):
            if count:
                colour = "white" if share[true, predicted] > 0.35 else "0.2"
                matrix.text(predicted, true, f"{count}", ha="center", va="center", color=colour, fontsize=8)
        names = scene.spec.class_names
        matrix.set_xticks(range(size), names, rotation=90 if max(map(len, names)) > LONGEST else 0)
        matrix.set_yticks(range(size), names)
    matrix.set(xlabel="predicted class", ylabel="true class", title="counts, shaded by share of the true class")
    bars.barh(range(size), recall, color=LEARNED, height=0.7)
    bars.set(xlim=(0, 1.0), xlabel="share found", title="recall")
    bars.spines[["top", "right"]].set_visible(False)
    bars.tick_params(left=False)
    if size <= MOST_NUMBERS:
        for place, value in enumerate(recall):
            inside = value > 0.4  # the number has room in its bar, or else stands behind it
            at, colour = (0.05, "white") if inside else (value + 0.05, "0.2")
            bars.text(at, place, f"{value:.1%}", va="center", color=colour, fontsize=8)
    return figure


def confusion(scene: Scene) -> NDArray[np.int64]:
    """(C, C) counts of test examples by true and predicted class."""
    true = scene.examples.y.cpu().numpy()
    predicted = scene.probabilities.argmax(axis=1)
    counts = np.zeros((scene.spec.num_classes,) * 2, dtype=np.int64)
    np.add.at(counts, (true, predicted), 1)
    return counts
