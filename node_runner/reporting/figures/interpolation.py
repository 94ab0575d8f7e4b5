"""The straight line between two series in a latent space, decoded."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure

from node_runner.reporting.figures.scene import Array, Scene, host
from node_runner.reporting.figures.style import TRUE, clean, height, limits, planar, sheet, window
from node_runner.tasks.series import series_batch


AMONG, STEPS, MOST_AXES = 200, 7, 4
"""Test series among which the two that differ most are chosen, codes on the line, and axes that are shown."""


def draw(scene: Scene) -> Figure | None:
    """What lies between the two test series whose codes are farthest apart; None where the model has no codes.

    States in the plane get a panel for each code, others a row for each axis over time.
    """
    if not hasattr(scene.model, "posterior"):
        return None
    part = scene.series
    batch = series_batch(part, part.rows(AMONG))
    ts = part.grid[: max(2, int((part.grid <= part.last_seen).sum()))]
    mean, _ = scene.model.posterior(batch.ts, batch.values, batch.seen)
    first, last = divmod(int(torch.cdist(mean, mean).argmax()), len(mean))
    share = torch.linspace(0, 1, STEPS, dtype=mean.dtype, device=mean.device).unsqueeze(1)
    codes = torch.lerp(mean[first], mean[last], share)
    decoded = host(scene.model.decode(scene.model.trajectory(codes, ts)))
    ends = [first, last]
    observed = host(torch.where(batch.seen, batch.values, torch.nan)[:, ends])
    heading = f"{scene.spec.dataset}: between the codes of two test series, decoded (black: its beginning)"
    return (
        _plane(scene, decoded, observed, heading)
        if scene.spec.shape == (2,)
        else _times(scene, host(ts), decoded, (host(batch.times[:, ends]), observed), heading)
    )


def _names() -> list[str]:
    inner = [f"{place}/{STEPS - 1}" for place in range(1, STEPS - 1)]
    return ["one series", *inner, "another"]


def _plane(scene: Scene, decoded: Array, observed: Array, heading: str) -> Figure:
    """A panel for each code. decoded: (T, STEPS, 2), observed: (T, 2, 2) of the series at both ends."""
    shown = np.concatenate([decoded.reshape(-1, 2), observed.reshape(-1, 2)])
    x, y = window(shown[np.isfinite(shown).all(axis=1)])
    figure = sheet(1.85 * STEPS + 0.4, 1.75 * height(x, y) + 1.0, heading)
    colours = mpl.colormaps["viridis"](np.linspace(0, 0.85, STEPS))
    for place, (axes, name) in enumerate(zip(figure.subplots(1, STEPS), _names(), strict=True)):
        if place in (0, STEPS - 1):
            axes.plot(*observed[:, min(place, 1)].T, ".", color=TRUE, markersize=5, markeredgewidth=0)
        axes.plot(*decoded[:, place].T, color=colours[place])
        axes.plot(*decoded[0, place], ".", color="black", markersize=6, markeredgewidth=0)
        axes.set_title(name)
        planar(clean(axes), x, y, scene.axis_names).label_outer()
    return figure


def _times(scene: Scene, ts: Array, decoded: Array, ends: tuple[Array, Array], heading: str) -> Figure:
    """A row for each axis, a line for each code.

    Args:
        scene: whose axes they are.
        ts, decoded: (T,), (T, STEPS, D).
        ends: times (S, 2) and observations (S, 2, D) of the series at both ends.
        heading: of the figure.
    """
    times, observed = ends
    names = scene.axis_names[:MOST_AXES]
    figure = sheet(5.6, 1.75 * len(names) + 1.0, heading)
    rows = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
    colours = mpl.colormaps["viridis"](np.linspace(0, 0.85, STEPS))
    for axis, (axes, label) in enumerate(zip(rows, names, strict=True)):
        clean(axes).set(ylabel=label, ylim=limits(decoded[..., axis]))
        for place, name in enumerate(_names()):
            axes.plot(ts, decoded[:, place, axis], color=colours[place], label=name)
        for place in (0, 1):
            axes.plot(times[:, place], observed[:, place, axis], ".", color=colours[place * (STEPS - 1)], markersize=5)
    rows[-1].set_xlabel(scene.spec.clock)
    handles, labels = rows[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center")
    return figure
