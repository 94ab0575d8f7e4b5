"""Where in the plane a classifier sees which class."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from node_runner.reporting.figures.scene import Scene, host, plane
from node_runner.reporting.figures.style import class_colours, height, planar, sheet, window


SIZE, MOST = 150, 2000


def draw(scene: Scene) -> Figure | None:
    """Regions in the classes' colours, paler where the model is less sure, with test points; None off the plane."""
    if scene.spec.shape != (2,):
        return None
    points, true = host(scene.examples.x), scene.examples.y.cpu().numpy()
    predicted = scene.probabilities.argmax(axis=1)
    wrong = predicted != true
    x, y = window(points)
    shares = scene.classify(plane(x, y, SIZE))
    colours, classes = class_colours(scene.spec.num_classes), scene.spec.class_names
    heading = f"{scene.spec.dataset}: decision regions, {scene.accuracy}"
    figure = sheet(5.6, 5.0 * height(x, y) + 1.3, heading)
    axes = figure.subplots()
    across_and_up = np.linspace(*x, SIZE), np.linspace(*y, SIZE)
    # A mixture of the colours by probability fades to grey at the border; white keeps the points readable.
    mixed = np.clip(0.5 * shares @ colours + 0.5, 0, 1).reshape(SIZE, SIZE, 3)
    axes.imshow(np.nan_to_num(mixed, nan=1.0), origin="lower", extent=(*x, *y), interpolation="bilinear", aspect="auto")
    for kind, colour in enumerate(colours):
        own = points[:MOST][true[:MOST] == kind]
        axes.plot(*own.T, ".", color=colour, markersize=3.5, markeredgewidth=0, label=f"class {classes[kind]}")
        # Above the largest other share inside this class's region, below it outside.
        lead = shares[:, kind] - np.delete(shares, kind, axis=1).max(axis=1)
        if lead.min() < 0 < lead.max():
            axes.contour(*across_and_up, lead.reshape(SIZE, SIZE), levels=[0.0], colors="0.25", linewidths=0.8)
    missed = points[:MOST][wrong[:MOST]]
    label = f"mistaken ({wrong.mean():.1%})"
    axes.plot(*missed.T, "x", color="black", markersize=2.8, markeredgewidth=0.6, label=label)
    planar(axes, x, y, scene.axis_names)
    figure.legend(loc="outside lower center", ncols=min(5, len(colours) + 1), markerscale=2)
    return figure
