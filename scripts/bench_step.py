"""What does a training step cost outside of its solve, in microseconds?

    python scripts/bench_step.py                                  # every problem, some seconds each
    python scripts/bench_step.py --problems spiral --rounds 100

Method. The solve of an ordinary run is replaced by a stand-in that evaluates the field once, ys = y0 + t f(0, y0),
so that what surrounds a solve is not lost in its noise. In one process the runner's whole step (batch, model, loss,
gradient, its norm, meter, optimiser, moving average) and the stand-in alone, with its gradient, take turns of 25. A
line of metrics and a validation are no part of a step. The garbage collector is off while a clock runs.

Reading. `outside` is the step without the stand-in: the median over the rounds of their difference, and the
difference of the two minima. Most of it is arithmetic that every loop needs: encoder, head, loss and their gradients.

Limits. The smaller the field, the more the caches still hold from the step before: around a real solve the same
operations take somewhat longer. It is one machine and one version of each package.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from recording import BENCHMARKS, parse
from torch import Tensor, nn
from training_runs import RUNS, available

from node_runner.assemble import assemble
from node_runner.config import compose_run
from node_runner.reporting.figures.style import LEARNED, TRUE, clean, sheet, style
from node_runner.reporting.run_folder import RunFolder
from node_runner.runs.run import make_trainer
from node_runner.runtime import synchronise
from node_runner.solving import timed
from node_runner.types import Dynamics, Norm, Solution, SolveStats


TURN = 25
"""Steps between two looks at the clock."""


class StandIn:
    """One evaluation in the place of a solve; remembers what was asked first."""

    def __init__(self) -> None:
        self.asked: tuple[Dynamics, Tensor, Tensor] | None = None

    def __call__(self, f: Dynamics, y0: Tensor, ts: Tensor, *, norm: Norm | None = None) -> Solution:
        if self.asked is None:
            self.asked = f, y0.detach().clone().requires_grad_(y0.requires_grad), ts
        times = ts.to(y0.dtype).reshape(-1, *[1] * y0.dim())
        return Solution(ts, y0 + times * f(ts[0], y0), SolveStats(nfe_forward=1))


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Microseconds of a step and of the stand-in alone, a round at a time."""
    overrides = [*RUNS[name], "engine=torchdiffeq", f"device={options.device}", "trainer.steps=1000000"]
    experiment = assemble(compose_run(overrides))
    stand_in = StandIn()
    for module in experiment.model.modules():
        if hasattr(module, "solve"):
            module.solve = timed(stand_in)  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(experiment, RunFolder(Path(folder)))

    def step() -> None:
        trainer.optimise(measure_saved=False)
        trainer.state.step += 1

    step()
    assert stand_in.asked is not None
    field, y0, ts = stand_in.asked
    leaves = [y0, *(field.parameters() if isinstance(field, nn.Module) else ())]
    gradient = torch.ones_like(stand_in(field, y0, ts).ys)

    def solve() -> None:
        for leaf in leaves:
            leaf.grad = None
        stand_in(field, y0, ts).ys.backward(gradient)

    times: dict[str, list[float]] = {"step": [], "solve": []}
    gc.collect()
    gc.disable()
    try:
        for turn in range(options.rounds + 3):
            for key, work in (("step", step), ("solve", solve)):
                taken = clock(work, experiment.device)
                if turn >= 3:  # the first ones warm up
                    times[key].append(taken)
    finally:
        gc.enable()
    return {"problem": name, **times}


def clock(work: Callable[[], None], device: torch.device) -> float:
    """Microseconds of one piece of work, from a turn of them."""
    synchronise(device)
    began = time.perf_counter()
    for _ in range(TURN):
        work()
    synchronise(device)
    return (time.perf_counter() - began) / TURN * 1e6


def row(result: Mapping[str, Any]) -> dict[str, Any]:
    """One line of the table."""
    step, solve = result["step"], result["solve"]
    return {
        "problem": result["problem"],
        "step, µs": statistics.median(step),
        "stand-in, µs": statistics.median(solve),
        "outside, µs": statistics.median([a - b for a, b in zip(step, solve, strict=True)]),
        "outside, by the minima, µs": min(step) - min(solve),
    }


def draw(results: Sequence[Mapping[str, Any]]) -> Figure:
    """What is outside the solve, round by round."""
    with style():
        figure = sheet(6.4, 0.9 + 0.42 * len(results), "Time of a training step outside of its solve")
        axes = clean(figure.add_subplot(), grid=True)
        for place, result in enumerate(results):
            outside = [a - b for a, b in zip(result["step"], result["solve"], strict=True)]
            axes.plot(outside, [place] * len(outside), "o", color=TRUE, markersize=3)
            axes.plot(statistics.median(outside), place, "|", color=LEARNED, markersize=18, markeredgewidth=2.5)
        axes.set_yticks(range(len(results)), [result["problem"] for result in results])
        axes.set_xlabel("µs (points: rounds, bars: medians)")
        axes.set_ylim(len(results) - 0.5, -0.5)
        axes.set_xlim(left=0)
    return figure


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--problems", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--rounds", type=int, default=60, help="of both (default: %(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options, record = parse(__doc__, __file__, arguments, parser, BENCHMARKS / "step")
    if options.quick:
        options.rounds = 2
    names, left_out = available(options.problems)
    results = []
    for name in names:
        results.append(measure(name, options))
        print(", ".join(f"{key}: {value}" for key, value in row(results[-1]).items()), flush=True)
    text = "\n".join([f"{options.rounds} rounds of {TURN} steps.", *left_out])
    record.add("Result", text, [row(result) for result in results], {"outside": draw(results)})
    record.write(results, torch.device(options.device), "float32")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
