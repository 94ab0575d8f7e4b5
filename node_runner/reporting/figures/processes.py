"""Processes: paths that a model draws, how widely they spread, and what it takes to drive them."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from node_runner.reporting.figures.scene import Array, Scene, host
from node_runner.reporting.figures.style import (
    LEARNED,
    SHADE,
    clean,
    figure_of,
    legend_below,
    limits,
    sheet,
)
from node_runner.tasks.parts.law import given, increment, marginal
from node_runner.tasks.series import series_batch


DRAWN, PATHS, COLUMNS = 2000, 6, 3
"""Draws from which bands are made, those that are shown, and test series."""

WIDE, NARROW = (0.05, 0.95), (0.25, 0.75)
"""Shares between which 90 and 50 % of the draws lie."""

REACH = 1.6449
"""Standard deviations about the mean that hold 90 % of a normal law."""


def draw_forecasts(scene: Scene) -> Figure | None:
    """Test series, what is drawn on from what is seen of them, and the exact law of that; an axis a row.

    None where nothing is known after what is seen.
    """
    part, end = scene.series, scene.series.last_seen
    if not part.known[part.times > end].any():
        return None
    rows = part.rows(COLUMNS)
    batch = series_batch(part, rows)
    generator = torch.Generator().manual_seed(0)
    draws = observed(scene, scene.model.imagine(batch.ts, batch.values, batch.seen, DRAWN, generator=generator))
    times, names = host(batch.times), scene.axis_names
    exact = None if scene.spec.law is None else given(scene.spec.law, batch.ts, batch.values, batch.seen)
    figure = sheet(3.2 * len(rows) + 0.4, 2.3 * len(names) + 0.9, title(scene, "forecasts", "forecast_w1", "coverage"))
    grid = figure.subplots(len(names), len(rows), sharex=True, sharey="row", squeeze=False)
    for column, ts in enumerate(times.T):
        for axis, name in enumerate(names):
            axes = clean(grid[axis, column])
            axes.axvspan(end, ts[-1], color=SHADE, linewidth=0, label="nothing is seen here")
            fan(axes, ts, draws[:, :, column, axis])
            if exact is not None:
                law(axes, ts, host(exact.mean[:, column, axis]), host(exact.std[:, column, axis]))
            known, target = batch.lesson.known, batch.lesson.target
            for where, face, label in (
                (batch.seen, "black", "seen"), (known & ~batch.seen, "white", "not seen"),
            ):  # fmt: skip
                place = host(where[:, column, axis]) > 0
                values = host(target[:, column, axis])[place]
                axes.plot(ts[place], values, "o", color="black", markerfacecolor=face, markersize=3, label=label)
            if column == 0:
                axes.set_ylabel(name)
        grid[-1, column].set_xlabel(scene.spec.clock)
    legend_below(figure, grid[0])
    return figure


def draw_process(scene: Scene) -> Figure:
    """Paths drawn from nothing with the band of the exact law, and deviations of values and of steps over time."""
    part, names = scene.series, scene.axis_names
    generator = torch.Generator().manual_seed(0)
    states = scene.model.generate(part.grid, DRAWN, generator=generator).value.transpose(0, 1)
    draws, ts = observed(scene, states), host(part.grid)
    figure = sheet(9.6, 2.6 * len(names) + 0.7, title(scene, "draws", "marginal_w1", "increment_w1"))
    grid = figure.subplots(len(names), 3, squeeze=False)
    known = scene.spec.law
    for axis, name in enumerate(names):
        paths, spread, steps = (clean(axes) for axes in grid[axis])
        fan(paths, ts, draws[:, :, axis])
        spread.plot(ts, draws[:, :, axis].std(axis=0), color=LEARNED, label="learned")
        steps.plot(ts[1:], np.diff(draws[:, :, axis], axis=1).std(axis=0), color=LEARNED, label="learned")
        if known is not None:
            at, between = marginal(known, part.grid), increment(known, part.grid)
            law(paths, ts, host(at.mean), host(at.std))
            spread.plot(ts, host(at.std), color="black", linestyle="--", label="exact")
            steps.plot(ts[1:], host(between.std), color="black", linestyle="--", label="exact")
        paths.set(ylabel=name, title="observations", ylim=limits(draws[:, :, axis], tails=0.002))
        spread.set(title="standard deviation of an observation")
        steps.set(title="of the step to the next observation")
        for axes in (spread, steps):
            axes.set_ylim(0, 1.25 * axes.get_ylim()[1])
    for axes in grid[-1]:
        axes.set_xlabel(scene.spec.clock)
    legend_below(figure, grid[0])
    return figure


def draw_coefficients(scene: Scene) -> Figure | None:
    """Learned drift and diffusion of a process with one axis, where its test values lie, beside the true ones.

    None of models whose equation is not one of the values themselves.
    """
    if not hasattr(scene.model, "coefficients") or scene.spec.shape != (1,):
        return None
    if scene.model.coefficients(scene.to_model(scene.spec.mean.unsqueeze(0))) is None:
        return None
    values = host(scene.series.ys)[host(scene.series.known) > 0]
    some = values[:: max(1, len(values) // 300)]
    low, high = np.quantile(values, (0.005, 0.995))
    x = torch.linspace(float(low), float(high), 200, dtype=torch.float64).unsqueeze(1)
    learned = [host(found)[:, 0] for found in scene.model.coefficients(scene.to_model(x))]
    figure = sheet(7.4, 3.3, f"{scene.spec.dataset}: what drives the process")
    known = scene.spec.law
    true = (None, None) if known is None else (known.drift(x), known.diffusion(x))
    panels = figure.subplots(1, 2)
    for axes, name, curve, exact in zip(panels, ("drift", "diffusion"), learned, true, strict=True):
        clean(axes, grid=True)
        axes.plot(host(x)[:, 0], curve, color=LEARNED, label="learned")
        if exact is not None:
            axes.plot(host(x)[:, 0], host(exact)[:, 0], color="black", linestyle="--", label="exact")
        axes.plot(
            some, np.full_like(some, 0.01), "|", transform=axes.get_xaxis_transform(), color="0.6", markersize=7,
            label="test values",
        )  # fmt: skip
        axes.set(xlabel=scene.axis_names[0], ylabel=name)
    panels[1].set_ylim(bottom=0, top=1.5 * float(np.max(learned[1])))
    legend_below(figure, panels)
    return figure


def observed(scene: Scene, states: torch.Tensor) -> Array:
    """States (S, ..., D) with the noise of the model's observations, on the CPU."""
    noise = torch.randn(states.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found: Array = host(states) + noise.numpy() * host(scene.model.observation_std)
    return found


def fan(axes: Axes, ts: Array, draws: Array) -> None:
    """Bands that hold 90 and 50 % of draws (S, T), and some of them."""
    for (low, high), alpha in ((WIDE, 0.16), (NARROW, 0.24)):
        lower, upper = np.quantile(draws, (low, high), axis=0)
        label = f"{round(100 * (high - low))} % of the draws"
        axes.fill_between(ts, lower, upper, color=LEARNED, alpha=alpha, linewidth=0, label=label)
    for number, path in enumerate(draws[:PATHS]):
        axes.plot(ts, path, color=LEARNED, linewidth=0.5, alpha=0.7, label=None if number else "draws")


def law(axes: Axes, ts: Array, mean: Array, std: Array) -> None:
    """The borders that hold 90 % of a normal law at each time."""
    for number, border in enumerate((mean - REACH * std, mean + REACH * std)):
        axes.plot(ts, border, color="black", linestyle="--", linewidth=0.9, label=None if number else "exact, 90 %")


def title(scene: Scene, what: str, *metrics: str) -> str:
    """What is shown, with what was measured of the whole test."""
    words = {name: scene.measured(f"test/{name}") for name in metrics}
    shown = [f"{name.replace('_', ' ')} {figure_of(value)}" for name, value in words.items() if value is not None]
    return ", ".join([f"{scene.spec.dataset}: {what}", *shown])
