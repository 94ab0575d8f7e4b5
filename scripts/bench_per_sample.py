"""What does a step size for each sample gain, where samples need very different ones?

    python scripts/bench_per_sample.py
    python scripts/bench_per_sample.py --rounds 3 --no-peers

Method. One step is that of bench_engines: solve, mean squared error over all outputs, gradient, and an Adam update
whose learning rate is 0. The cubic spiral turns faster far from its centre, so the start's radius says how many steps
a trajectory needs. Three batches of 64: all alike, radii spread evenly on a logarithmic scale, and one fast trajectory
among 63 slow ones. Each contestant solves with a shared step size and with one for each sample; the contestants take
turns in one process, in rounds of at least 0.2 seconds each; medians of the rounds. float32, rtol 1e-6, atol 1e-8.
Errors are the largest over samples of the root mean square over a trajectory, against float64 at a tolerance of 1e-10,
divided by that trajectory's own: they show who pays for the shared choice.

Reading. x is torchdiffeq's step over the contestant's. Evaluations are of one sample: shared ones are the same for
all, per-sample ones are given as mean and largest. A vector machine evaluates idle lanes too: fewer evaluations are
time saved where a lane takes another sample as soon as its own has arrived (native), or where the whole batch can stop.

Limits. One small network, on a CPU. diffrax maps its solve over the batch (jax.vmap), which computes until the
last sample is done; torchode does the same on tensors.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from bench_engines import contestant
from engine_peers import Contestant, diffrax_steps, torchdiffeq_steps, torchode_steps
from engine_problems import Problem, about_spread, spread
from engine_turns import take_turns
from matplotlib.figure import Figure
from recording import BENCHMARKS, parse
from torch import Tensor
from torchdiffeq import odeint

from node_runner.adjoints import ADJOINTS
from node_runner.engines import ENGINES
from node_runner.reporting.figures.style import clean, sheet, style
from node_runner.settings import Batching, ToleranceConfig
from node_runner.solving import Solve, Tolerances


RADII = {
    "alike": torch.linspace(1.9, 2.0, 64),
    "spread": torch.logspace(-1, 0, 64) * 2.0,
    "one-fast": torch.cat([torch.full((1,), 2.0), torch.linspace(0.25, 0.35, 63)]),
}
"""Radii of the starts, by problem."""

CONTESTANTS = (
    ("native", Batching.shared, 1.0),
    ("native", Batching.shared, 0.1),
    ("native", Batching.per_sample, 1.0),
    ("lanes", Batching.per_sample, 1.0),
)
"""Engine, whose steps, and what the problem's tolerances are multiplied with: a shared step must be chosen with a
tighter one before the worst trajectory is as right as with a step of its own."""


def ours(problem: Problem, exact: Tensor) -> Iterator[tuple[Contestant, dict[str, Any]]]:
    """Engines of this package by backpropagation, with what is known of their values."""
    for name, batching, factor in CONTESTANTS:
        engine = ENGINES.build(ENGINES.schema(name)())
        method = replace(problem.method, batching=batching)
        about = "" if factor == 1 else f", tolerances x {factor:g}"
        if engine.refuses(method, problem.field, problem.y0, None, "off") is not None:
            continue
        tolerances = Tolerances(ToleranceConfig(rtol=factor * problem.rtol, atol=factor * problem.atol))
        solve = Solve(engine, method, ADJOINTS.get("off")(), tolerances)
        counted = name == "native"  # the mean of lanes, sample by sample, takes a minute, and is the same
        with torch.no_grad():
            solution = solve(problem.field, problem.y0, problem.ts)
            starts = problem.y0.split(1) if counted and batching is Batching.per_sample else [problem.y0]
            evaluations = [solve(problem.field, y0, problem.ts).stats.nfe_forward for y0 in starts]
        yield (
            contestant(f"{name}, {batching.value}{about}", problem, solve),
            {
                "evaluations, mean": statistics.mean(evaluations) if counted else None,
                "evaluations, largest": max(evaluations),
                "worst error": worst(solution.ys, exact),
            },
        )


def worst(ys: Tensor, exact: Tensor) -> float:
    """Largest relative error of a trajectory."""
    error = (ys.double() - exact).square().sum(-1).mean(0).sqrt()
    return float((error / exact.square().sum(-1).mean(0).sqrt()).max())


def measure(name: str, radii: Tensor, rounds: int, peers: bool) -> list[dict[str, Any]]:
    """One problem: a line a contestant."""
    problem = spread(radii)
    tight = deepcopy(problem).double()
    with torch.no_grad():
        exact = odeint(tight.field, tight.y0, tight.ts, rtol=1e-10, atol=1e-10, method="dopri8")
        base = odeint(problem.field, problem.y0, problem.ts, rtol=problem.rtol, atol=problem.atol)
    entrants: list[tuple[Contestant, dict[str, Any]]] = [
        (next(torchdiffeq_steps(problem)), {"worst error": worst(base, exact)}),
        *ours(problem, exact),
    ]
    if peers:
        entrants += [(entrant, {}) for entrant in torchode_steps(problem)]
        for batching in Batching:
            entrant = next(diffrax_steps(problem, per_sample=batching is Batching.per_sample))
            entrants.append((entrant._replace(name=f"{entrant.name}, {batching.value}"), {}))
    for entrant, _ in entrants:
        began = time.perf_counter()
        entrant.step()
        print(f"{name}: {entrant.name}, a step in {time.perf_counter() - began:.2f} s", flush=True)
    times = take_turns([entrant for entrant, _ in entrants], rounds, torch.device("cpu"))
    slowest = statistics.median(times[0])
    return [
        {
            "contestant": entrant.name,
            "ms": statistics.median(ms),
            "smallest": min(ms),
            "largest": max(ms),
            "x": slowest / statistics.median(ms),
            "evaluations, mean": known.get("evaluations, mean"),
            "evaluations, largest": known.get("evaluations, largest"),
            "worst error": known.get("worst error"),
        }
        for (entrant, known), ms in zip(entrants, times, strict=True)
    ]


def draw(results: dict[str, list[dict[str, Any]]]) -> Figure:
    """Time against the error of the worst trajectory, for those whose values are at hand: axes a problem."""
    names = list(dict.fromkeys(row["contestant"] for rows in results.values() for row in rows if row["worst error"]))
    with style():
        figure = sheet(4 * len(results), 3.8, "who pays for a shared step size")
        for axes, (name, rows) in zip(figure.subplots(1, len(results), squeeze=False)[0], results.items(), strict=True):
            clean(axes, grid=True)
            for index, called in enumerate(names):
                for row in rows:
                    if row["contestant"] == called:
                        axes.plot(row["worst error"], row["ms"], "osD^v"[index], color=f"C{index}", label=called)
            axes.set(xscale="log", yscale="log", title=name, xlabel="relative error of the worst trajectory")
        figure.axes[0].set(ylabel="ms a training step")
        figure.axes[0].legend(fontsize=7)
    return figure


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--problems", nargs="+", choices=RADII, default=list(RADII))
    parser.add_argument("--rounds", type=int, default=7, help="(default: %(default)s)")
    parser.add_argument("--no-peers", action="store_true", help="leave torchode and diffrax out")
    options, record = parse(__doc__, __file__, arguments, parser, BENCHMARKS / "per_sample")
    if options.quick:
        options.rounds, options.problems = 1, options.problems[:1]
    torch.set_num_threads(1)
    radii = {name: RADII[name][: 16 if options.quick else None] for name in options.problems}
    results = {name: measure(name, radii[name], options.rounds, not options.no_peers) for name in options.problems}
    record.add("Time against accuracy", figures={"per_sample": draw(results)})
    for name, rows in results.items():
        record.add(name, f"{about_spread(radii[name])}. 1 thread, medians of {options.rounds} rounds.", rows)
    record.write(results, torch.device("cpu"), "float32")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
