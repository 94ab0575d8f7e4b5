"""When a model says that events happen, and when they do."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from node_runner.reporting.figures.horizon import beyond
from node_runner.reporting.figures.scene import Array, Prediction, Scene
from node_runner.reporting.figures.style import LEARNED, PALETTE, SHADE, TRUE, clean, figure_of, sheet


SMALLEST = 1e-9
"""An error of nothing, on a logarithmic scale."""


def draw(scene: Scene) -> Figure | None:
    """The test trajectory of most events, and the error of the time of every event; none where events are not known."""
    tests = [(name, part) for name, part in scene.tests if part.events is not None and part.jumps is not None]
    if not tests:
        return None
    figure = sheet(7.2, 5.2, title(scene, [name for name, _ in tests]))
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.1))
    horizon = scene.horizon
    longest = max((part for _, part in tests), key=lambda part: float(part.ts[-1]))
    for axes in (above, below):
        if beyond(longest.ts[-1], horizon):
            axes.axvspan(horizon, longest.ts[-1], color=SHADE, linewidth=0, zorder=-1)
    _trajectory(clean(above), longest, scene.axis_names[0])
    for colour, (name, part) in zip(PALETTE[1:], tests, strict=False):
        _errors(clean(below, grid=True), name, part, colour)
    spacing = float(np.diff(longest.ts).mean())
    below.axhline(spacing, color="0.3", linewidth=0.9, linestyle=":", label="time between two observations")
    below.set(yscale="log", xlabel=scene.spec.clock, ylabel="|learned - true| time of event")
    below.set_xlim(longest.ts[0], longest.ts[-1])
    below.set_ylim(top=10 * max(spacing, below.get_ylim()[1]))  # room for the legend
    for axes in (above, below):
        axes.legend(loc="upper right", ncols=3, frameon=True, framealpha=0.9, edgecolor="none")
    return figure


def title(scene: Scene, names: list[str]) -> str:
    """What is shown, with the mean error of every test."""
    errors = [(name, scene.measured(f"{name}/event_time_error")) for name in names]
    told = ", ".join(f"{figure_of(error)} on {name}" for name, error in errors if error is not None)
    return f"{scene.spec.dataset}: times of events" + (f", mean error {told}" if told else "")


def pairs(part: Prediction) -> tuple[Array, Array]:
    """Times of the true events (n,), and of the predicted ones of the same rank (n,), NaN where there is none."""
    assert part.events is not None and part.jumps is not None, "asked for where events are known"
    real = part.jumps >= 0
    found: Array = np.full_like(part.jumps, np.nan)
    width = min(found.shape[1], part.events.shape[1])
    found[:, :width] = part.events[:, :width]
    found[found < 0] = np.nan
    return part.jumps[real], found[real]


def _trajectory(axes: Axes, part: Prediction, name: str) -> None:
    """States of the trajectory of most events along its first axis, over marks at the times of its events."""
    assert part.events is not None and part.jumps is not None, "asked for where events are known"
    row = int((part.jumps >= 0).sum(axis=1).argmax())
    axes.plot(part.ts, part.true[row, :, 0], color=TRUE, linewidth=3.2, alpha=0.8, label="true")
    axes.plot(part.ts, part.learned[row, :, 0], color=LEARNED, linewidth=1.2, label="learned")
    for times, colour, width, style in ((part.jumps[row], TRUE, 3.2, "-"), (part.events[row], LEARNED, 1.2, "--")):
        for time in times[times >= 0]:
            axes.axvline(time, color=colour, linewidth=width, linestyle=style, alpha=0.6, zorder=0)
    axes.set_ylabel(name)


def _errors(axes: Axes, name: str, part: Prediction, colour: str) -> None:
    """A dot an event, and a cross at the top for one that is not predicted."""
    true, found = pairs(part)
    missed = np.isnan(found)
    error = np.maximum(np.abs(found - true), SMALLEST)
    axes.plot(
        true[~missed], error[~missed], "o", color=colour, markersize=4.5, markeredgewidth=0, alpha=0.8, label=name
    )
    if missed.any():
        at_top = axes.get_xaxis_transform()
        axes.plot(
            true[missed], np.full(missed.sum(), 0.97), "x", color=colour, transform=at_top, label=f"{name}, missed"
        )
