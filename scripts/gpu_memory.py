"""Part (b) of gpu_check.py: memory as the steps of a solve grow, by adjoint."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import adjoint_report
import bench_adjoint
from gpu_part import Part, say
from matplotlib.figure import Figure

from node_runner.reporting.figures.style import clean, sheet, style


def check_memory(options: argparse.Namespace) -> Part:
    """(b)."""
    sizes = {"rk4": options.memory_steps, "dopri5": options.memory_times}
    results = []
    for solver, adjoints in adjoint_report.ADJOINTS_OF.items():
        for adjoint in adjoints:
            for size in sizes[solver]:
                point = bench_adjoint.Point(
                    solver, adjoint, size, 64, options.memory_batch, 1e-5, 1e-6, 1, options.device, "float32", 1
                )
                results.append({**bench_adjoint.measure(point), "gradient": None})
    rows = [
        {"solver": r["solver"], "adjoint": r["adjoint"], "steps": r["steps"], "saved, MiB": r["saved_mb"],
         "peak, MiB": r["peak_mb"], "ms": r["ms"]}
        for r in results
    ]  # fmt: skip
    for row in rows:
        say(row)
    # The peak of a CPU shows the allocator's history, all points being measured in one process.
    key = "peak_mb" if options.device == "cuda" else "saved_mb"
    slopes = {
        (solver, adjoint): adjoint_report.fit(adjoint_report.select(results, solver, adjoint), key)[1]
        for solver, adjoints in adjoint_report.ADJOINTS_OF.items()
        for adjoint in adjoints
    }
    steep = [pair for pair, slope in slopes.items() if pair[1] != "off" and slope > 0.1 * slopes[pair[0], "off"]]
    summary = f"{key} in MiB a step: " + ", ".join(
        f"{s} {a} {round(slope, 4) + 0:g}" for (s, a), slope in slopes.items()
    )
    return Part("failed" if steep else "passed", f"{summary}.", rows, {"memory": draw_memory(results)})


def draw_memory(results: Sequence[Mapping[str, Any]]) -> Figure:
    """Peak and saved memory against the steps."""
    with style():
        figure = sheet(7.5, 3.4, "Peak memory (line) and what autograd keeps (dashed)")
        for axes, (solver, adjoints) in zip(figure.subplots(1, 2), adjoint_report.ADJOINTS_OF.items(), strict=True):
            clean(axes, grid=True)
            for adjoint in adjoints:
                adjoint_report.draw_memory(axes, adjoint_report.select(results, solver, adjoint), adjoint)
            axes.set(title=solver, xlabel="accepted steps", ylabel="MiB")
            axes.legend()
    return figure
