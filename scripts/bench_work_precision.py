"""What does a gradient of a given accuracy cost with each engine, as the tolerance tightens?

    python scripts/bench_work_precision.py
    python scripts/bench_work_precision.py --problems spirals-small --rounds 3 --no-peers

Method. The training step and the problems are those of bench_engines, in float32 and by backpropagation through the
accepted steps. Every contestant does it at each of the tolerances rtol = 1e-2, 1e-3, 1e-4, 1e-5, 1e-6 (atol a tenth
of it), and all of them take turns in one process, in rounds of at least 0.2 seconds each; medians of the rounds. The
error is the relative one of the whole gradient against a gradient in float64 at tolerance 1e-10. Compilation is
not in the times: bench_engines shows it.

Reading. Lower and further to the left is better. The contestants take the same steps for the same tolerance, up to
the choice of the first, so their curves have the same shape, and the distance between them is what a step costs. A
curve that goes straight up has reached the accuracy of float32.

Limits. diffrax rates the error of a whole batch as ours does; torchode, which chooses steps for each sample, is in
bench_per_sample.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from bench_engines import LIBRARIES, engine_steps, reference
from engine_peers import Contestant, diffrax_steps, torchdiffeq_steps
from engine_problems import PROBLEMS, Problem
from engine_turns import take_turns
from matplotlib.figure import Figure
from recording import BENCHMARKS, parse

from node_runner.reporting.figures.style import clean, sheet, style


TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
WORTHLESS = 3.0
"""A gradient that is further off than its own size is left to the table: where it lies would hide the others."""
SHOWN = ("spirals-small", "vector-block", "flow-exact")


def contestants(problem: Problem, engines: Sequence[str], peers: bool) -> Iterator[Contestant]:
    """Everybody's backpropagation, the library's name alone as the name."""
    yield next(torchdiffeq_steps(problem))
    for entrant in engine_steps(problem, engines):
        library, gradient = entrant.name.split(", ")
        if gradient == "off":
            yield entrant._replace(name=library)
    if peers:
        for entrant in diffrax_steps(problem):
            yield entrant._replace(name="diffrax")
            return


def measure(name: str, rounds: int, engines: Sequence[str], peers: bool) -> list[dict[str, Any]]:
    """One problem: a line a contestant and tolerance."""
    problem, exact = PROBLEMS[name](), reference(name)
    entrants, rows = [], []
    for rtol in TOLERANCES:
        for entrant in contestants(replace(problem, rtol=rtol, atol=rtol / 10), engines, peers):
            entrant.step()
            gradient = entrant.gradient()
            assert gradient is not None, "every library's gradient is read"
            error = float((gradient - exact).norm() / exact.norm())
            rows.append({"contestant": entrant.name, "rtol": rtol, "gradient error": error, **entrant.facts()})
            entrants.append(entrant)
            print(f"{name}: {entrant.name} at {rtol:g}", flush=True)
    for row, ms in zip(rows, take_turns(entrants, rounds, torch.device("cpu")), strict=True):
        row["ms"], row["smallest"], row["largest"] = statistics.median(ms), min(ms), max(ms)
    return rows


def draw(results: dict[str, list[dict[str, Any]]]) -> Figure:
    """Milliseconds of a training step against the error of its gradient: axes a problem, a curve a library."""
    with style():
        figure = sheet(4 * len(results), 3.8, "what a gradient costs")
        for axes, (name, rows) in zip(figure.subplots(1, len(results), squeeze=False)[0], results.items(), strict=True):
            clean(axes, grid=True)
            for library, colour in LIBRARIES.items():
                own = [row for row in rows if row["contestant"] == library]
                points = [row["gradient error"] for row in own], [row["ms"] for row in own]
                if own:
                    axes.plot(*points, "o-", color=colour, markersize=4, label=library)
            axes.set(xscale="log", yscale="log", title=name, xlabel="relative error of the gradient")
            axes.set_xlim(right=min(axes.get_xlim()[1], WORTHLESS))
        figure.axes[0].set(ylabel="ms a training step")
        figure.axes[-1].legend(fontsize=7, loc="upper right")
    return figure


COLUMNS = ("contestant", "rtol", "gradient error", "ms", "smallest", "largest", "NFE forward", "accepted", "rejected")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and record."""
    parser = argparse.ArgumentParser()
    adaptive = [name for name in PROBLEMS if "rk4" not in name and name != "image-block"]
    parser.add_argument("--problems", nargs="+", choices=adaptive, default=list(SHOWN))
    parser.add_argument("--engines", nargs="+", choices=("native", "compiled"), default=["native", "compiled"])
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--no-peers", action="store_true", help="leave diffrax out")
    options, record = parse(__doc__, __file__, arguments, parser, BENCHMARKS / "work_precision")
    if options.quick:
        options.rounds, options.problems = 1, options.problems[:1]
    torch.set_num_threads(1)
    results = {name: measure(name, options.rounds, options.engines, not options.no_peers) for name in options.problems}
    setting = f"1 thread, medians of {options.rounds} rounds."
    record.add("Time against accuracy", setting, figures={"work_precision": draw(results)})
    for name, rows in results.items():
        record.add(
            name, f"{PROBLEMS[name]().about}.", [{column: row.get(column) for column in COLUMNS} for row in rows]
        )
    record.write(results, torch.device("cpu"), "float32")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
