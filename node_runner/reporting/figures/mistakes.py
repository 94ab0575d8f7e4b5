"""The images that the model is most wrongly sure of."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from node_runner.reporting.figures.samples import picture
from node_runner.reporting.figures.scene import Scene, host
from node_runner.reporting.figures.style import sheet


ROWS, COLUMNS = 5, 5


def draw(scene: Scene) -> Figure | None:
    """The 25 most confident mistakes; None where the examples are no images, or there is no mistake."""
    if len(scene.spec.shape) != 3:
        return None
    true = scene.examples.y.cpu().numpy()
    predicted, names = scene.probabilities.argmax(axis=1), scene.spec.class_names
    confidence = scene.probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != true)
    if not len(wrong):
        return None
    order = np.argsort(-confidence[wrong], kind="stable")
    shown = wrong[order][: ROWS * COLUMNS]
    some = f"the {len(shown)} most confident of {len(wrong):,}" if len(shown) < len(wrong) else f"all {len(wrong)}"
    title = f"{scene.spec.dataset}: {some} mistakes in {len(true):,} test images"
    rows = -(-len(shown) // COLUMNS)
    figure = sheet(1.25 * COLUMNS + 0.2, 1.5 * rows + 0.5, title)
    grid = figure.subplots(rows, COLUMNS, squeeze=False)
    images = host(scene.examples.x[scene.examples.y.new_tensor(shown)])
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, row, image in zip(grid.flat, shown, images, strict=False):
        axes.set_axis_on()
        picture(axes, image.reshape(-1), scene.spec.shape)
        axes.set_title(f"{names[true[row]]} taken for {names[predicted[row]]}\n{confidence[row]:.1%} sure", fontsize=8)
    return figure
