"""What `bench_adjoint` found, in tables and a figure: how memory, time and gradients change as a solve grows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from node_runner.reporting.figures.style import PALETTE, clean, sheet, style


ADJOINTS_OF = {"rk4": ("off", "on"), "dopri5": ("off", "on", "seminorm")}
"""A seminorm changes how a step is chosen; fixed steps are not."""

PAGE = 4 / 1024
"""MiB of the smallest memory that a logarithmic axis shows."""

COLOURS = {"off": PALETTE[0], "on": PALETTE[5], "seminorm": PALETTE[2]}

COLUMNS = {
    "solver": "solver", "adjoint": "adjoint", "size": "size", "steps": "steps", "nfe/forward": "nfe_forward",
    "nfe/backward": "nfe_backward", "memory/saved_mb": "saved_mb", "peak, MiB": "peak_mb", "ms": "ms",
    "gradient, difference from off": "gradient",
}  # fmt: skip
"""Headings of the table of all points, and what stands below each."""


def fit(results: Sequence[Mapping[str, Any]], key: str) -> tuple[float, float, float]:
    """Least squares of `key` in the steps: intercept, slope, share of the variance explained."""
    x = np.array([r["steps"] for r in results], dtype=float)
    y = np.array([r[key] for r in results], dtype=float)
    slope, intercept = np.polyfit(x, y, 1)
    spread = ((y - y.mean()) ** 2).sum()
    rest = ((y - intercept - slope * x) ** 2).sum()
    return float(intercept), float(slope), float(1 - rest / spread) if spread > 0 else 1.0


def growth(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One line for each solver and adjoint: how memory grows with the steps."""
    rows = []
    for solver, adjoints in ADJOINTS_OF.items():
        for adjoint in adjoints:
            chosen = select(results, solver, adjoint)
            row: dict[str, Any] = {"solver": solver, "adjoint": adjoint}
            row["steps"] = f"{chosen[0]['steps']} to {chosen[-1]['steps']}"
            for key in ("saved_mb", "peak_mb"):
                _, slope, explained = fit(chosen, key)
                values = [r[key] for r in chosen]
                row |= {
                    f"{key}, MiB a step": round(slope, 6) + 0,
                    f"{key}, R2": f"{explained:.4f}" if adjoint == "off" else None,
                    f"{key}, largest over smallest": max(values) / min(values) if min(values) > 0 else None,
                }
            rows.append(row)
    return rows


def select(results: Sequence[Mapping[str, Any]], solver: str, adjoint: str) -> list[Mapping[str, Any]]:
    """The points of one line of the figure, in the order of their size."""
    return [r for r in results if r["solver"] == solver and r["adjoint"] == adjoint]


def table(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One line a point."""
    return [{heading: result[key] for heading, key in COLUMNS.items()} for result in results]


def draw(results: Sequence[Mapping[str, Any]]) -> Figure:
    """Memory, time and gradient against the steps: a row for each solver."""
    with style():
        figure = sheet(10.5, 5.8, "Gradients of a solve: memory, time and difference as its steps grow")
        axes = figure.subplots(2, 3)
        for row, (solver, adjoints) in zip(axes, ADJOINTS_OF.items(), strict=True):
            memory, clock, difference = (clean(each, grid=True) for each in row)
            for adjoint in adjoints:
                chosen = select(results, solver, adjoint)
                steps = [r["steps"] for r in chosen]
                draw_memory(memory, chosen, adjoint)
                clock.loglog(steps, [r["ms"] for r in chosen], "o-", color=COLOURS[adjoint], markersize=3.5)
                if adjoint != "off":
                    values = [r["gradient"] for r in chosen]
                    difference.loglog(steps, values, "o-", color=COLOURS[adjoint], markersize=3.5)
            memory.set(ylabel=f"{solver}: MiB")
            clock.set(ylabel="ms, forward and backward")
            difference.set(ylabel="gradient: difference from off")
            for each in row:
                each.set_xlabel("accepted steps of the forward solve")
                each.xaxis.set_minor_formatter(NullFormatter())
                each.yaxis.set_minor_formatter(NullFormatter())
        axes[1, 0].legend()
        axes[0, 0].set_title("peak (line), kept by autograd (dashed), linear fit (grey)")
    return figure


def draw_memory(axes: Axes, chosen: Sequence[Mapping[str, Any]], adjoint: str) -> None:
    """Peak and saved memory of one adjoint; for `off` the line fitted to the peak."""
    steps = np.array([r["steps"] for r in chosen], dtype=float)
    peak, saved = (np.maximum([r[key] for r in chosen], PAGE) for key in ("peak_mb", "saved_mb"))
    axes.loglog(steps, peak, "o-", color=COLOURS[adjoint], markersize=3.5, label=adjoint)
    axes.loglog(steps, saved, "s--", color=COLOURS[adjoint], markersize=2.5, linewidth=0.9)
    if adjoint == "off":
        intercept, slope, _ = fit(chosen, "peak_mb")
        line = np.maximum(intercept + slope * steps, PAGE)
        axes.loglog(steps, line, color="0.6", linewidth=3.5, alpha=0.5, zorder=0)
