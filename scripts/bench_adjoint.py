"""What do adjoint=off, on and seminorm cost in memory and time as a solve takes more steps?

    python scripts/bench_adjoint.py                               # every point, each in a process of its own
    python scripts/bench_adjoint.py --device cuda --batch 4096
    python scripts/bench_adjoint.py --in-process                  # sooner, and the allocator's history shows

Method. The field is a multilayer perceptron (tanh, two hidden layers as wide as the state, initial weights times
3 so that it is lively), the loss the mean square of the final state. The solve grows in two ways: rk4 over [0, 1]
with more and more steps, and dopri5 over longer and longer times. Each point runs in a fresh process, since an
allocator that has grown once does not show the next growth: after a small solve as warm-up, the peak is that of one
forward and backward pass (`PeakMemory`, as in memory/peak_mb), saved_mb is what autograd keeps between the two, and
the time is the median of further passes. All solves go through engine=torchdiffeq and the runner's adjoints.
Gradients are compared apart from that, in float64 and at a tight tolerance on a small batch: |g - g_off| / |g_off|
over all parameters, with g_off the exact gradient of the computed numbers.

Reading. `off` keeps every stage of every step, so its memory is a line in the steps: the fit gives MiB a step and
the share of the variance it explains (R2). `on` and `seminorm` keep the states at the output times only and must be
flat: "largest over smallest" is near 1. They pay with a second solve backward in time. With rk4 the gradient of `on`
differs from that of `off` by the error of the solver itself, so it falls with the fourth power of the steps; with
dopri5 it is a matter of the tolerance.

Limits. On a CPU the peak is resident memory, which comes in pages: differences below a few MiB mean nothing, and
where small tensors come and go between large ones the C library's allocator leaves holes, so that the peak can be
a multiple of what autograd keeps; saved_mb is the cleaner figure. One field of one size: the ratio of times depends
on how much of a step is arithmetic. The gradients of a long solve of a lively field are ill-conditioned, and their
difference grows with it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from adjoint_report import ADJOINTS_OF, draw, growth, table
from recording import BENCHMARKS, parse
from torch import Tensor

from node_runner.fields.mlp import MLP
from node_runner.library import solver
from node_runner.memory import PeakMemory, saved_for_backward
from node_runner.runtime import synchronise
from node_runner.settings import Activation
from node_runner.types import SolveStats


STEPS = (10, 20, 40, 80, 160, 320, 640)
TIMES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)


@dataclass(frozen=True)
class Point:
    """One measurement: what is solved, and how.

    Attributes:
        solver, adjoint: by their names in the registries.
        size: steps of rk4, end time of dopri5.
        state, batch: of the state (batch, state).
        rtol, atol: of dopri5.
        repeats: passes that are timed.
        device, precision: where, and in which floating point type.
        threads: of the CPU.
    """

    solver: str
    adjoint: str
    size: float
    state: int
    batch: int
    rtol: float
    atol: float
    repeats: int
    device: str
    precision: str
    threads: int


class Problem:
    """The field, the initial state and the solve of a point."""

    def __init__(self, point: Point) -> None:
        torch.set_num_threads(point.threads)
        torch.manual_seed(0)
        self.device, dtype = torch.device(point.device), getattr(torch, point.precision)
        self.field = MLP((point.state,), width=point.state, depth=2, activation=Activation.tanh).double()
        with torch.no_grad():
            for parameter in self.field.parameters():
                if parameter.ndim == 2:
                    parameter *= 3
        self.field.to(self.device, dtype)
        self.y0 = torch.randn(point.batch, point.state, dtype=torch.float64).to(self.device, dtype)
        steps = {"step_size": 1 / point.size} if point.solver == "rk4" else {}
        self.solve = solver(
            point.solver, rtol=point.rtol, atol=point.atol, adjoint=point.adjoint, engine="torchdiffeq", **steps
        )
        self.end = 1.0 if steps else point.size

    def forward(self, share: float = 1.0) -> tuple[Tensor, SolveStats]:
        """Loss of a solve over a share of the time, and what it cost."""
        ts = torch.tensor([0.0, share * self.end], device=self.device, dtype=self.y0.dtype)
        solution = self.solve(self.field, self.y0, ts)
        return solution.ys[-1].pow(2).mean(), solution.stats

    def backward(self, loss: Tensor) -> None:
        """Fresh gradients of the parameters."""
        self.field.zero_grad(set_to_none=True)
        loss.backward()

    def gradient(self) -> Tensor:
        """All gradients of one pass, flat."""
        self.backward(self.forward()[0])
        return torch.cat([p.grad.reshape(-1) for p in self.field.parameters() if p.grad is not None])


def measure(point: Point) -> dict[str, Any]:
    """Memory, time and cost of one point, in this process."""
    problem = Problem(point)
    # A step or few are enough to load what torch loads late, and too little to grow the allocator.
    problem.backward(problem.forward(1 / point.size if point.solver == "rk4" else 0.01)[0])
    problem.field.zero_grad(set_to_none=True)
    synchronise(problem.device)
    memory = PeakMemory(problem.device)
    loss, stats = problem.forward()
    problem.backward(loss)
    synchronise(problem.device)
    peak = memory.peak_mb()
    # In a pass of its own: what it hangs on every saved tensor changes how the allocator fills its pages.
    with saved_for_backward(problem.field) as saved:
        loss, _ = problem.forward()
    del loss
    seconds = []
    for _ in range(point.repeats):
        began = time.perf_counter()
        problem.backward(problem.forward()[0])
        synchronise(problem.device)
        seconds.append(time.perf_counter() - began)
    return {
        **asdict(point),
        "steps": stats.accepted,
        "nfe_forward": stats.nfe_forward,
        "nfe_backward": stats.nfe_backward,
        "saved_mb": saved.mb,
        "peak_mb": peak,
        "memory_source": memory.source,
        "ms": 1000 * statistics.median(seconds),
        "ms_all": [1000 * value for value in seconds],
    }


def measure_apart(point: Point) -> dict[str, Any]:
    """`measure` in a fresh process."""
    command = [sys.executable, __file__, "--point", json.dumps(asdict(point))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{point}:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def compare_gradients(point: Point, batch: int) -> dict[str, float]:
    """Relative difference of each continuous adjoint's gradient from the discrete one, in float64."""
    tight = replace(point, precision="float64", rtol=1e-8, atol=1e-10, batch=batch)
    exact = Problem(replace(tight, adjoint="off")).gradient()
    others = [name for name in ADJOINTS_OF[point.solver] if name != "off"]
    found = {name: Problem(replace(tight, adjoint=name)).gradient() for name in others}
    return {name: float((gradient - exact).norm() / exact.norm()) for name, gradient in found.items()}


def points(options: argparse.Namespace) -> list[Point]:
    """Every measurement that the command line asks for."""
    sizes = {"rk4": options.steps, "dopri5": options.times}
    return [
        Point(
            solver, adjoint, size, options.state, options.batch, options.rtol, options.rtol / 10, options.repeats,
            options.device, "float32", options.threads,
        )
        for solver, adjoints in ADJOINTS_OF.items()
        for adjoint in adjoints
        for size in sizes[solver]
    ]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--state", type=int, default=64, help="numbers in one state (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=1024, help="states (default: %(default)s)")
    parser.add_argument("--steps", type=int, nargs="+", default=list(STEPS), help="of rk4 (default: %(default)s)")
    parser.add_argument("--times", type=float, nargs="+", default=list(TIMES), help="of dopri5 (default: %(default)s)")
    parser.add_argument("--rtol", type=float, default=1e-5, help="of dopri5, atol a tenth (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="passes that are timed (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (default: %(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--in-process", action="store_true", help="every point in this process")
    parser.add_argument("--point", help=argparse.SUPPRESS)
    options, record = parse(__doc__, __file__, arguments, parser, BENCHMARKS / "adjoint")
    if options.point:
        print(json.dumps(measure(Point(**json.loads(options.point)))))
        return 0
    if options.quick:
        options.state, options.batch, options.repeats, options.in_process = 8, 64, 1, True
        options.steps, options.times = [4, 8], [0.5, 1.0]
    results = []
    differences: dict[tuple[str, float], dict[str, float]] = {}
    for point in points(options):
        case = (point.solver, point.size)
        if case not in differences:
            differences[case] = compare_gradients(point, min(point.batch, 8))
        result = (measure if options.in_process else measure_apart)(point)
        results.append({**result, "gradient": differences[case].get(point.adjoint)})
        print(f"{point.solver} {point.adjoint} {point.size:g}: {result['steps']} steps, saved {result['saved_mb']:.2f} "
              f"MiB, peak {result['peak_mb']:.2f} MiB, {result['ms']:.1f} ms", flush=True)  # fmt: skip
    torch.set_num_threads(options.threads)
    setting = (
        f"State {options.state}, batch {options.batch}, float32; dopri5 at rtol {options.rtol:g}. "
        f"Peak: {results[0]['memory_source']}; "
        + ("every point in one process." if options.in_process else "every point in a process of its own.")
    )
    record.add("How memory grows", setting, growth(results), {"growth": draw(results)})
    record.add("Every point", "Size: steps of rk4, end time of dopri5.", table(results))
    record.write(results, torch.device(options.device), "float32, gradients compared in float64")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
