"""Several runs in one figure: how their losses fell, and what each reached at what cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Literal, NamedTuple

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from node_runner.cli.compare.compared import Compared, choice_text, short_keys
from node_runner.cli.compare.loss_curve import Validated, loss_curve
from node_runner.cli.compare.seeds import without_seeds
from node_runner.cli.figure_file import write_figure
from node_runner.cli.measures import HIGHER, quality_names
from node_runner.errors import DataError
from node_runner.reporting.figures.style import class_colours, clean, sheet, style


FELL = ("optimiser steps", "evaluations of the field, both ways", "seconds of training")
LineStyle = Literal["-", "--", ":", "-."]
REACHED = {
    "MiB kept by autograd for a backward": ("saved_mb",),
    "evaluations in an optimiser step, both ways": ("nfe_forward", "nfe_backward"),
    "ms in an optimiser step": ("ms_step",),
}
"""What a step costs: the sum of these columns of `Measures.costs`."""

LINES: tuple[LineStyle, ...] = ("-", "--", ":", "-.")
MARKERS = "osD^vPX*"

ALIKE = 0.05
"""Costs within this share of each other are drawn as one place."""

LETTERS = 150
"""Letters that fit on a line of the legend."""


class Look(NamedTuple):
    """How a run is drawn."""

    colour: tuple[float, ...]
    line: LineStyle
    marker: str


def draw_comparison(runs: Sequence[Compared], file: Path) -> None:
    """Draw val/loss over steps, evaluations and seconds; below, the quality of the completed runs over costs of a step.

    Runs are told apart by colour and, where two choices differ, by marker and line too. Of runs that look alike, which
    differ by their seeds, the median is shown, with a bar from the least to the greatest. Medians are joined where the
    second choice alone differs. Choices of which an accurate solve makes another are hollow.

    Args:
        runs: what to compare.
        file: image to write; its ending decides on the format.

    Raises:
        DataError: no run has been validated yet.
        ConfigError: the ending is no image format.
    """
    curves = [loss_curve(run.folder) for run in runs]
    if not any(curves):
        raise DataError("nothing to plot: none of these runs has been validated yet")
    metric = _metric(runs)
    ended = [run for run in runs if run.measures.status == "completed" and metric in run.measures.quality]
    with style():
        looks, legend = looks_of(factors(runs))
        if any(run.measures.apart is not None for run in ended):
            hollow = "hollow: bound to its solver (val_tight)"
            legend.append(
                Line2D([], [], color="0.3", linestyle="", marker=MARKERS[0], markerfacecolor="white", label=hollow)
            )
        ended_looks = {looks[runs.index(run)] for run in ended}
        if len(ended) > len(ended_looks):
            keys = list(runs[0].choices)
            alike = "range over runs that are alike" if without_seeds(keys) == keys else "range over seeds"
            legend.append(Line2D([], [], color="0.3", marker="|", markersize=9, linestyle="", label=alike))
        columns = max(1, min(len(legend), LETTERS // max(4 + len(str(entry.get_label())) for entry in legend)))
        rows = 1 if len(ended) < 2 else 2
        figure = sheet(11.5, 3.0 * rows + 0.5 + 0.2 * math.ceil(len(legend) / columns), _headline(len(runs)))
        panels = figure.subplots(rows, len(FELL), sharey="row", squeeze=False)
        _draw_falls(panels[0], curves, looks)
        if rows == 2:
            chosen = [looks[runs.index(run)] for run in ended]
            for axes, (label, columns_of_cost) in zip(panels[1], REACHED.items(), strict=True):
                _draw_reached(axes, ended, chosen, columns_of_cost, metric)
                axes.set_xlabel(label)
            better = "higher" if metric.rsplit("/", 1)[-1] in HIGHER else "lower"
            panels[1][0].set_ylabel(f"{metric} ({better} is better)")
        figure.legend(handles=legend, loc="outside lower center", ncols=columns)
        write_figure(figure, file)


def _headline(count: int) -> str:
    return "how the loss fell" if count == 1 else f"how the losses of {count} runs fell, and what a step costs them"


def _metric(runs: Sequence[Compared]) -> str:
    """The quality to compare: the first of the test part that most runs have, val/loss where there is none."""
    names = [name for name in quality_names([run.measures for run in runs]) if name.startswith("test")]
    return max(names, key=lambda name: sum(name in run.measures.quality for run in runs), default="val/loss")


def _draw_falls(panels: Sequence[Axes], curves: Sequence[list[Validated]], looks: Sequence[Look]) -> None:
    for index, (axes, label) in enumerate(zip(panels, FELL, strict=True)):
        for curve, look in zip(curves, looks, strict=True):
            places, losses = [point[index] for point in curve], [point.loss for point in curve]
            axes.plot(places, losses, color=look.colour, linestyle=look.line, marker=".", markersize=4)
        positive = all(point.loss > 0 for curve in curves for point in curve)
        clean(axes, grid=True).set(xlabel=label, yscale="log" if positive else "linear")
    panels[0].set_ylabel("val/loss")


def _draw_reached(
    axes: Axes, runs: Sequence[Compared], looks: Sequence[Look], columns: Sequence[str], metric: str
) -> None:
    groups: dict[tuple[float, ...], dict[Look, list[tuple[float, float]]]] = {}
    drawn: list[tuple[float, float]] = []
    bound: dict[Look, bool] = {}
    for run, look in zip(runs, looks, strict=True):
        costs = [run.measures.costs.get(column) for column in columns]
        if any(cost is not None for cost in costs):
            point = (sum(cost or 0.0 for cost in costs), run.measures.quality[metric])
            groups.setdefault(look.colour, {}).setdefault(look, []).append(point)
            bound[look] = bound.get(look, False) or run.measures.apart is not None
            drawn.append(point)
    for colour, points in groups.items():
        middle = [(median(x for x, _ in alike), median(y for _, y in alike)) for alike in points.values()]
        axes.plot(*zip(*middle, strict=True), color=colour, linewidth=0.8, alpha=0.6)
        for (look, alike), (x, y) in zip(points.items(), middle, strict=True):
            face = "white" if bound[look] else colour
            axes.plot(x, y, color=colour, marker=look.marker, markerfacecolor=face, markersize=6, zorder=3)
            if len(alike) > 1:
                axes.vlines(
                    x, min(q for _, q in alike), max(q for _, q in alike), color=colour, linewidth=1.2, alpha=0.7
                )
    clean(axes, grid=True)
    axes.set(xscale=_scale([x for x, _ in drawn]), yscale=_scale([y for _, y in drawn]))
    if room := room_for([x for x, _ in drawn]):
        axes.set_xlim(room)


def room_for(costs: Sequence[float]) -> tuple[float, float] | None:
    """Limits of an axis for costs that are one but for a few evaluations, which are not to fill it."""
    if not costs or max(costs) <= 0 or max(costs) - min(costs) > ALIKE * max(costs):
        return None
    return (1 - 2 * ALIKE) * min(costs), (1 + 2 * ALIKE) * max(costs)


def _scale(values: Sequence[float]) -> str:
    """Logarithmic for what spans more than one decade."""
    return "log" if values and min(values) > 0 and max(values) > 10 * min(values) else "linear"


def factors(runs: Sequence[Compared]) -> list[list[str]]:
    """What tells the runs apart: at most two factors, each with its value in every run.

    Settings that change together are one factor. Seeds count only where nothing else differs, and where there are
    more than two factors, they are taken as one.
    """
    keys = list(runs[0].choices)
    keys = without_seeds(keys) or keys
    together: dict[tuple[int, ...], list[str]] = {}
    for key in keys:
        values = [choice_text(run.choices[key]) for run in runs]
        order = list(dict.fromkeys(values))
        together.setdefault(tuple(order.index(value) for value in values), []).append(key)
    if not together:
        return [[run.name for run in runs]]
    factors = [[_value(run, same) for run in runs] for same in together.values()]
    return factors if len(factors) < 3 else [[", ".join(values) for values in zip(*factors, strict=True)]]


def _value(run: Compared, keys: Sequence[str]) -> str:
    pairs = zip(short_keys(keys), (run.choices[key] for key in keys), strict=True)
    return ", ".join(f"no {name}" if value is None else f"{name}={choice_text(value)}" for name, value in pairs)


def looks_of(factors: Sequence[Sequence[str]]) -> tuple[list[Look], list[Line2D]]:
    """The look of every run, and the entries of the legend."""
    first = list(dict.fromkeys(factors[0]))
    colours = dict(zip(first, map(tuple, class_colours(len(first))), strict=True))
    second = list(dict.fromkeys(factors[1])) if len(factors) > 1 else []
    shapes = dict(zip(second, zip(cycle(LINES), cycle(MARKERS), strict=False), strict=False))
    plain: tuple[LineStyle, str] = (LINES[0], MARKERS[0])
    looks = [
        Look(colours[values[0]], *(shapes[values[1]] if second else plain)) for values in zip(*factors, strict=True)
    ]
    legend = [Line2D([], [], color=colour, marker=MARKERS[0], label=name) for name, colour in colours.items()]
    legend += [Line2D([], [], color="0.3", linestyle=line, marker=m, label=name) for name, (line, m) in shapes.items()]
    return looks, legend
