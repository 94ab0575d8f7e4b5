"""How long does a training step take with each engine and each gradient, beside torchdiffeq, torchode and diffrax?

    python scripts/bench_engines.py                                   # every problem, one thread
    python scripts/bench_engines.py --problems spirals --rounds 3
    python scripts/bench_engines.py --threads 2 --out experiments/benchmarks/engines_two_threads
    python scripts/bench_engines.py --device cuda --out experiments/benchmarks/engines_gpu

Method. One step is: solve, mean squared error over all outputs, gradient, and an Adam update whose learning rate
is 0, so that every step does the same work. The first step of each contestant is timed apart: it compiles. Then the
contestants take turns in one process, in rounds of at least 0.2 seconds each; medians of the rounds. All in float32.
The step of torchdiffeq is written as its users write it; the step of the engines of this package is that of a run:
the same `Solve`, gradients let go by hand, and the same Adam, torch's fused kernel with less around it. Accuracy
stands beside speed: the relative error of each gradient against one in float64 at tolerance 1e-10 (torchdiffeq,
backpropagation; for images its adjoint at 1e-6), since the continuous adjoint and the gradient of the computed numbers
are different approximations of the same thing.

Reading. Times are only comparable within one table. x is torchdiffeq's backpropagation over the contestant; NFE and
steps are those of one step. torchode chooses a step for each sample, so it does other work on a batch. diffrax runs
on JAX, which compiles the whole loop.

Limits. The problems are those of small and middle size, where a solver's overhead matters; where matrices or
convolutions dominate, no engine can gain much. torchdiffeq differentiates its estimate of the first step, our engines
do not: that is the difference between their discrete gradients at loose tolerances.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from engine_peers import Contestant, diffrax_steps, flat_gradient, torchdiffeq_steps, torchode_steps
from engine_problems import PROBLEMS, Problem
from engine_turns import take_turns
from matplotlib.figure import Figure
from recording import BENCHMARKS, parse
from torch import Tensor
from torchdiffeq import odeint, odeint_adjoint

from node_runner.adjoints import ADJOINTS
from node_runner.engines import ENGINES
from node_runner.reporting.figures.style import clean, sheet, style
from node_runner.runtime import synchronise
from node_runner.settings import ToleranceConfig
from node_runner.solving import Solve, Tolerances
from node_runner.training.fused import FusedAdam
from node_runner.types import SolveStats


def engine_steps(problem: Problem, names: Sequence[str]) -> Iterator[Contestant]:
    """Engines of this package with every gradient that each computes itself."""
    for name in names:
        engine = ENGINES.build(ENGINES.schema(name)())
        for adjoint in ADJOINTS.names():
            why = engine.unsupported(problem.method) or ADJOINTS.get(adjoint)().unsupported(problem.method)
            why = why or engine.refuses(problem.method, problem.field, problem.y0, None, adjoint)
            if adjoint not in engine.adjoints or why is not None:
                continue
            tolerances = Tolerances(ToleranceConfig(rtol=problem.rtol, atol=problem.atol))
            solve = Solve(engine, problem.method, ADJOINTS.get(adjoint)(), tolerances)
            yield contestant(f"{name}, {adjoint}", problem, solve)


def contestant(name: str, problem: Problem, solve: Solve) -> Contestant:
    """One engine and gradient of this package."""
    parameters = list(problem.field.parameters())
    optimizer = FusedAdam(parameters, lr=0.0, betas=(0.9, 0.999), eps=1e-8)
    latest: list[SolveStats] = []

    def step() -> None:
        for parameter in parameters:
            parameter.grad = None
        solution = solve(problem.field, problem.y0, problem.ts)
        problem.loss(solution.ys).backward()
        optimizer.step()
        latest[:] = [solution.stats]

    def facts() -> dict[str, Any]:
        (stats,) = latest
        return {"NFE forward": stats.nfe_forward, "NFE backward": stats.nfe_backward, "accepted": stats.accepted,
                "rejected": stats.rejected, "kept, MiB": stats.kept_bytes / 2**20}  # fmt: skip

    return Contestant(name, step, lambda: flat_gradient(problem.field), facts)


def reference(name: str) -> Tensor:
    """The gradient in float64 at a tolerance of 1e-10 (fixed-step methods: of their own steps in float64)."""
    problem = PROBLEMS[name]().double()
    tight = {"rtol": 1e-10, "atol": 1e-10} if problem.method.adaptive else {}
    solver = odeint
    if problem.y0.ndim > 2:
        # Images: backpropagation at that tolerance takes more memory than there is, and ReLU has kinks.
        solver, tight = odeint_adjoint, {"rtol": 1e-6, "atol": 1e-6}
    problem.loss(solver(problem.field, problem.y0, problem.ts, method=problem.method.name, **tight)).backward()
    return flat_gradient(problem.field)


def on(problem: Problem, device: torch.device) -> Problem:
    """The problem's tensors on a device."""
    for integrand in getattr(problem.field, "integrands", ()):
        if hasattr(integrand, "noise"):
            integrand.noise = integrand.noise.to(device)
    tensors = (tensor.to(device) for tensor in (problem.y0, problem.ts, problem.target))
    y0, ts, target = tensors
    field = problem.field.to(device)
    return Problem(problem.about, field, y0, ts, problem.rtol, problem.atol, problem.method, target)


def measure(name: str, rounds: int, engines: Sequence[str], peers: bool, device: torch.device) -> list[dict[str, Any]]:
    """One problem: a line a contestant."""
    problem = on(PROBLEMS[name](), device)
    exact = reference(name)
    makers = [torchdiffeq_steps(problem), engine_steps(problem, engines)]
    if peers and device.type == "cpu":
        makers += [torchode_steps(problem), diffrax_steps(problem)]
    contestants, rows = [], []
    base: Tensor | None = None
    for maker in makers:
        for entrant in maker:
            began = time.perf_counter()
            entrant.step()
            synchronise(device)
            first = entrant.first_s or time.perf_counter() - began
            gradient = entrant.gradient()
            row: dict[str, Any] = {"contestant": entrant.name, "first step, s": first}
            if gradient is not None:
                gradient = gradient.cpu()
                base = gradient if base is None else base
                row["gradient error"] = float((gradient - exact).norm() / exact.norm())
                row["from torchdiffeq's"] = float((gradient - base).norm() / base.norm())
            rows.append(row | entrant.facts())
            contestants.append(entrant)
            print(f"{name}: {entrant.name} made in {first:.1f} s", flush=True)
    times = take_turns(contestants, rounds, device)
    for row, ms in zip(rows, times, strict=True):
        row["ms"], row["smallest"], row["largest"] = statistics.median(ms), min(ms), max(ms)
    slowest = rows[0]["ms"]
    for row in rows:
        row["x"] = slowest / row["ms"]
        row["first step, s"] = max(0.0, row["first step, s"] - row["ms"] / 1000)
    return rows


COLUMNS = ("contestant", "ms", "smallest", "largest", "x", "gradient error", "from torchdiffeq's", "NFE forward",
           "NFE backward", "accepted", "rejected", "kept, MiB", "first step, s")  # fmt: skip


LIBRARIES = {
    "torchdiffeq": "0.45",
    "native": "#0072B2",
    "compiled": "#009E73",
    "torchode": "#CC79A7",
    "diffrax": "#D55E00",
}
"""Colours, by the first word of a contestant."""


def draw(results: dict[str, list[dict[str, Any]]]) -> Figure:
    """Speed-ups over torchdiffeq's backpropagation: a column a problem, a colour a library, a mark a gradient."""
    names = list(dict.fromkeys(row["contestant"] for rows in results.values() for row in rows))
    library = {name: name.replace(",", " ").split()[0] for name in names}
    marks = {name: "oD^sv"[[other for other in names if library[other] == library[name]].index(name)] for name in names}
    aside = {kind: 0.14 * (index - 2) for index, kind in enumerate(LIBRARIES)}
    with style():
        figure = sheet(11, 5.5, "a training step: times faster than torchdiffeq's backpropagation")
        axes = clean(figure.subplots(), grid=True)
        for index, rows in enumerate(results.values()):
            for row in rows:
                name = row["contestant"]
                place, colour = index + aside[library[name]], LIBRARIES[library[name]]
                axes.plot(place, row["x"], marks[name], color=colour, markersize=5, markeredgewidth=0, alpha=0.85)
        for name in names:
            axes.plot([], [], marks[name], color=LIBRARIES[library[name]], label=name)
        axes.set(yscale="log", ylabel="times as fast", xticks=range(len(results)))
        axes.set_xticklabels(list(results), rotation=30, ha="right")
        axes.axhline(1, color="0.6", linewidth=0.8)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=7)
    return figure


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    ours = [name for name in ENGINES.names() if name not in ("auto", "torchdiffeq")]
    parser.add_argument("--engines", nargs="+", choices=ours, default=ours)
    parser.add_argument("--rounds", type=int, default=7, help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (default: %(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--no-peers", action="store_true", help="leave torchode and diffrax out")
    options, record = parse(__doc__, __file__, arguments, parser, BENCHMARKS / "engines")
    if options.quick:
        options.rounds, options.problems = 1, options.problems[:1]
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    results = {
        name: measure(name, options.rounds, options.engines, not options.no_peers, device) for name in options.problems
    }
    best = []
    peers = ("torchdiffeq", "torchode", "diffrax")
    for name, rows in results.items():
        row = {"problem": name, "torchdiffeq, ms": rows[0]["ms"]}
        ours = [r for r in rows if not r["contestant"].startswith(peers)]
        theirs = [r for r in rows if r["contestant"].startswith("diffrax")]
        for heading, found in (("best engine here", ours), ("best of diffrax", theirs)):
            fastest = min(found, key=lambda r: r["ms"], default=None)
            row[heading] = None if fastest is None else fastest["contestant"]
            row[f"{heading}, x"] = None if fastest is None else fastest["x"]
        best.append(row)
    setting = f"{options.threads} thread{'s' * (options.threads > 1)}, medians of {options.rounds} rounds."
    record.add("The fastest", setting, best, {"speed_up": draw(results)})
    for name, rows in results.items():
        record.add(
            name, f"{PROBLEMS[name]().about}.", [{column: row.get(column) for column in COLUMNS} for row in rows]
        )
    record.write(results, device, "float32")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
