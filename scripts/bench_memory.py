"""How much memory does a training step take with each engine and each gradient, beside torchdiffeq?

    python scripts/bench_memory.py
    python scripts/bench_memory.py --problems spirals-tight --engines native

Method. A step is a solve, a loss, its gradient and an Adam update, as in bench_engines. Every figure comes from a
process of its own (with --quick, of this one): a step over a short time compiles and warms up, freed memory is given
back to the system, and the peak is how far resident memory rises in the first whole step. The median of several such
processes.

Reading. `off` keeps what the gradient of the computed numbers needs, `checkpoint` only the state of every accepted
step, `on` and `seminorm` solve backward in time. x is the peak over that of torchdiffeq's adjoint.

Limits. Resident memory comes in pages, and an allocator may hold more than is used: differences of some tenths of a
MiB mean nothing. Memory of the fields' own work on one evaluation is part of every figure. It needs Linux.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

import torch
from bench_engines import engine_steps
from engine_peers import Contestant, torchdiffeq_steps
from engine_problems import PROBLEMS, Problem
from matplotlib.figure import Figure
from recording import BENCHMARKS, parse

from node_runner.memory import PeakMemory
from node_runner.reporting.figures.style import PALETTE, clean, sheet, style


BASE = "torchdiffeq, adjoint"
CHOSEN = ("image-block", "flow-hutchinson", "spirals-tight")
ENGINES = ("native", "compiled")


def contestants(problem: Problem, engines: Sequence[str]) -> Iterator[Contestant]:
    """Torchdiffeq's two gradients, and all of each engine."""
    return chain(torchdiffeq_steps(problem), engine_steps(problem, engines))


def peak_mb(name: str, contestant: str, engines: Sequence[str]) -> float:
    """Rise of resident memory in a step, in MiB."""
    problem = PROBLEMS[name]()
    short = replace(problem, ts=problem.ts[0] + 1e-3 * (problem.ts[:2] - problem.ts[0]), target=problem.target[:2])
    warm_up, step = (
        next(c.step for c in contestants(each, engines) if c.name == contestant) for each in (short, problem)
    )
    warm_up()
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    memory = PeakMemory(torch.device("cpu"))
    step()
    return memory.peak_mb()


def apart(name: str, contestant: str, engines: Sequence[str], threads: int) -> float:
    """`peak_mb` in a fresh process."""
    command = [sys.executable, __file__, "--threads", str(threads), "--engines", *engines, "--one", name, contestant]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}, {contestant}:\n{done.stderr}")
    return float(json.loads(done.stdout.splitlines()[-1]))


def draw(name: str, rows: Sequence[dict[str, Any]]) -> Figure:
    """A bar for each contestant, the base in grey."""
    with style():
        figure = sheet(6.5, 0.9 + 0.24 * len(rows), f"{name}: peak memory of a training step")
        axes = clean(figure.subplots())
        names = [row["contestant"] for row in rows]
        peaks = [row["peak, MiB"] for row in rows]
        colours = ["0.6" if name.startswith("torchdiffeq") else PALETTE[0] for name in names]
        axes.barh(names, peaks, color=colours)
        axes.bar_label(axes.containers[0], fmt="%.3g", padding=3)
        axes.invert_yaxis()
        axes.set_xlabel("MiB above the memory before the step")
    return figure


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(CHOSEN))
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--repeats", type=int, default=3, help="processes for each figure (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (default: %(default)s)")
    parser.add_argument("--device", choices=("cpu",), default="cpu")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options, record = parse(__doc__, __file__, arguments, parser, BENCHMARKS / "memory")
    torch.set_num_threads(options.threads)
    if options.one:
        print(json.dumps(peak_mb(*options.one, options.engines)))
        return 0
    if options.quick:
        options.problems, options.engines, options.repeats = ["vector-block"], ["native"], 1
    measure = partial(peak_mb if options.quick else partial(apart, threads=options.threads), engines=options.engines)
    results: dict[str, list[dict[str, Any]]] = {}
    for name in options.problems:
        peaks = {
            contestant.name: [measure(name, contestant.name) for _ in range(options.repeats)]
            for contestant in contestants(PROBLEMS[name](), options.engines)
        }
        base = statistics.median(peaks[BASE])
        results[name] = [
            {
                "contestant": contestant,
                "peak, MiB": statistics.median(found),
                "smallest": min(found),
                "largest": max(found),
                "x": statistics.median(found) / base if base > 0 else None,
            }
            for contestant, found in peaks.items()
        ]
        record.add(name, f"{PROBLEMS[name]().about}.", results[name], {name: draw(name, results[name])})
        print(name, *(f"{row['contestant']}: {row['peak, MiB']:.2f} MiB" for row in results[name]), sep="\n  ")
    record.write(results, torch.device("cpu"), "float32")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
