"""What `bench_solvers` found, in tables and figures: work and precision of every solver."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from node_runner.reporting.figures.style import PALETTE, clean, sheet, style
from node_runner.tableaux import IMPLICIT


TARGETS = (1e-3, 1e-6, 1e-9)
"""Errors to which the tables tell the work."""


def best(points: Sequence[Mapping[str, Any]], target: float, cost: str) -> float | None:
    """The least cost of a point whose error is at most `target`."""
    costs = [point[cost] for point in points if point["error"] <= target]
    return min(costs) if costs else None


def table(lines: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One line a solver: evaluations and time to each error, with the fewest evaluations to the middle one first."""
    rows = []
    for solver, line in lines.items():
        row: dict[str, Any] = {"solver": solver}
        for target in TARGETS:
            row[f"NFE to {target:g}"] = best(line["points"], target, "nfe")
            row[f"ms to {target:g}"] = best(line["points"], target, "ms")
        row["finest error"] = min((point["error"] for point in line["points"] if point["error"] < 1), default=None)
        rows.append(row)
    middle = f"NFE to {TARGETS[1]:g}"
    return sorted(rows, key=lambda row: (row[middle] is None, row[middle] or 0))


def cheapest(results: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """One line a problem and an error: the solvers with the fewest evaluations and with the least time."""
    rows = []
    for problem, lines in results.items():
        for target in TARGETS:
            row: dict[str, Any] = {"problem": problem, "error": f"{target:g}"}
            for cost, heading in (("nfe", "fewest evaluations"), ("ms", "least time, ms")):
                costs = {s: best(line["points"], target, cost) for s, line in lines.items()}
                ranked = sorted((value, solver) for solver, value in costs.items() if value is not None)
                row[heading] = ", ".join(f"{solver} ({value:.3g})" if cost == "ms" else f"{solver} ({value})"
                                         for value, solver in ranked[:3]) or None  # fmt: skip
            rows.append(row)
    return rows


def family(solver: str, line: Mapping[str, Any]) -> str:
    """Which column of the figure a solver is drawn in."""
    if solver.startswith("scipy"):
        return "SciPy"
    if line["adaptive"]:
        return "adaptive"
    implicit = solver in IMPLICIT or solver == "implicit_adams"
    return "fixed steps, implicit" if implicit else "fixed steps, explicit"


def draw(problem: str, lines: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Error against evaluations and against time: a column for each family of solvers, the others in grey."""
    families = list(dict.fromkeys(family(solver, line) for solver, line in lines.items()))
    with style():
        figure = sheet(1.2 + 3.2 * len(families), 6.4, f"{problem}: work and precision")
        grid = figure.subplots(2, len(families), sharey=True, sharex="row", squeeze=False)
        for row, (cost, label) in zip(grid, (("nfe", "evaluations of the field"), ("ms", "ms")), strict=True):
            for axes, shown in zip(row, families, strict=True):
                clean(axes, grid=True).set(xlabel=label, xscale="log", yscale="log", ylim=(1e-14, 10))
                looks = itertools.cycle(zip(PALETTE * 2, "o" * len(PALETTE) + "s" * len(PALETTE), strict=True))
                for solver, line in lines.items():
                    work, error = ([point[key] for point in line["points"]] for key in (cost, "error"))
                    if family(solver, line) == shown:
                        colour, mark = next(looks)
                        axes.plot(work, error, f"{mark}-", markersize=2.8, color=colour, label=solver, zorder=3)
                    else:
                        axes.plot(work, error, color="0.88", linewidth=0.8)
        for top, bottom, shown in zip(*grid, families, strict=True):
            top.set_title(shown)
            names = top.get_legend_handles_labels()
            bottom.legend(*names, loc="upper left", bbox_to_anchor=(0, -0.22), fontsize=7, handlelength=1.2, ncols=2)
        for row in grid:
            row[0].set_ylabel("relative error at the end")
    return figure
