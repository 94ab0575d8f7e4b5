"""Which solver reaches a given error with the fewest evaluations of the field, and which in the least time?

    python scripts/bench_solvers.py                               # every solver on every problem
    python scripts/bench_solvers.py --problems oscillator --max-nfe 50000

Method. Work and precision on systems whose solution is known: the damped oscillator and the linear spiral in closed
form, Lotka-Volterra against DOP853 at a relative tolerance of 3e-14 (as the data set has it), and the stiff equation
of Prothero and Robinson, y' = -lambda (y - cos t) - sin t with lambda = 1000, in closed form. Each solve takes the
batch of test trajectories from start to end without output times between, in float64, through the runner's own
engine and solvers. Adaptive methods run at relative tolerances of 1e-2 to 1e-10 with the absolute one a tenth of
that; methods of fixed steps with more and more of them, implicit_adams at each number of steps with three
tolerances of its corrector, of which the points are kept that no other one beats; a sweep ends where a solve would
pass the budget of evaluations. The error is the RMS over the batch at the end, relative to the RMS of the solution;
the time is the median of several solves. Evaluations are counted on the whole batch, as nfe/forward.

Reading. Each line is one solver, in the column of its family, with the other families in grey: further left is
cheaper, further down more exact. A steep line gains much from a
little more work, which is the order of the method. The tables give, for three errors, the fewest evaluations and the
least time of any measured run that was at least as exact. Solvers of SciPy leave PyTorch at each evaluation, so they
look worse in time than in evaluations.

Limits. The fields are a few operations on small states: with a network for a field, time follows the evaluations much
more closely. Adaptive methods choose one step for the whole batch. Errors are those at the end of these orbits, and
a lucky cancellation can flatter one point of a line. torchdiffeq's adaptive methods step past the end and
interpolate back to it, so the interpolant's order counts beside the method's. Evaluations of the implicit methods
include those for their numerical Jacobians, of the Adams methods those of their corrector and their start.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from recording import BENCHMARKS, parse
from solvers_report import cheapest, draw, table
from torch import Tensor

from node_runner.datasets import DATASETS
from node_runner.engines import ENGINES
from node_runner.errors import SolveFailed
from node_runner.settings import ScipySolver
from node_runner.solvers import SOLVERS
from node_runner.types import Dynamics, Engine, Method
from node_runner.views import View


RTOLS = tuple(10.0**-k for k in range(2, 11))
LAMBDA = 1000.0
CORRECTOR = (1e-4, 1e-7, 1e-10)
"""Tolerances at which the corrector of implicit_adams counts as converged."""

ENOUGH_S = 0.5
"""Seconds of solving after which a point is not timed again."""


@dataclass(frozen=True)
class Problem:
    """A system with a known solution.

    Attributes:
        field: f(t, y).
        y0: (B, D).
        end: the solve is over [0, end].
        exact: (B, D) at the end.
    """

    field: Dynamics
    y0: Tensor
    end: float
    exact: Tensor

    def error(self, y: Tensor) -> float:
        """RMS error relative to the RMS of the solution."""
        return float((y - self.exact).pow(2).mean().sqrt() / self.exact.pow(2).mean().sqrt())


def simulated(name: str) -> Problem:
    """The test trajectories of one of the data sets, which hold no noise."""
    dataset: Any = DATASETS.build(DATASETS.schema(name)())
    part = dataset.splits(View.trajectories).test
    return Problem(dataset.vector_field, part.ys[:, 0].contiguous(), float(part.ts[-1]), part.ys[:, -1])


def prothero_robinson() -> Problem:
    """Prothero and Robinson, Math. Comp. 28, 1974: a fast transient onto a slow solution."""

    def field(t: Tensor, y: Tensor) -> Tensor:
        return -LAMBDA * (y - torch.cos(t)) - torch.sin(t)

    end = 2.0
    y0 = torch.linspace(0.5, 2.0, 4, dtype=torch.float64).unsqueeze(1)
    return Problem(field, y0, end, math.cos(end) + (y0 - 1) * math.exp(-LAMBDA * end))


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "oscillator": partial(simulated, "oscillator"),
    "spiral": partial(simulated, "spiral"),
    "lotka-volterra": partial(simulated, "lotka-volterra"),
    "stiff": prothero_robinson,
}


def methods(engine: Engine) -> dict[str, Method]:
    """Every solver of the registry that the engine runs; each integrator of SciPy's is one."""
    found = {}
    for name in SOLVERS.names():
        if name == "fixed_adams":  # the older name of implicit_adams
            continue
        schema = SOLVERS.schema(name)
        if name == "scipy_solver":
            for inner in ScipySolver:
                found[f"scipy {inner.value}"] = SOLVERS.build(schema(solver=inner), name)
        else:
            found[name] = SOLVERS.build(schema(), name)
        if name == "explicit_adams":  # a high order is stable for very small steps only
            found["explicit_adams 6"] = SOLVERS.build(schema(max_order=6), name)
    return {name: method for name, method in found.items() if engine.unsupported(method) is None}


def sweep(method: Method, problem: Problem, max_nfe: int) -> Iterator[tuple[str, Method, float]]:
    """(setting, method, rtol) from coarse to fine."""
    if method.adaptive:
        for rtol in RTOLS:
            yield f"rtol {rtol:g}", replace(method, max_steps=max_nfe), rtol
        return
    steps = 4
    while steps <= max_nfe:
        configured = replace(method, options={**method.options, "step_size": problem.end / steps})
        # The tolerance means nothing to the other methods of fixed steps.
        for rtol in CORRECTOR if method.name == "implicit_adams" else CORRECTOR[:1]:
            corrector = f", corrector {rtol:g}" if method.name == "implicit_adams" else ""
            yield f"{steps} steps{corrector}", configured, rtol
        steps *= 2


def measure(
    engine: Engine, method: Method, problem: Problem, max_nfe: int, repeats: int
) -> tuple[list[dict[str, Any]], str]:
    """The points of one line, and why it ends."""
    found: list[dict[str, Any]] = []
    ts = torch.tensor([0.0, problem.end], dtype=torch.float64)
    for setting, configured, rtol in sweep(method, problem, max_nfe):
        budget = _Budget(problem.field, max_nfe)
        seconds: list[float] = []
        try:
            while len(seconds) < repeats and sum(seconds) < ENOUGH_S:
                budget.left = max_nfe
                began = time.perf_counter()
                solution = engine.integrate(configured, budget, problem.y0, ts, rtol=rtol, atol=rtol / 10, norm=None)
                seconds.append(time.perf_counter() - began)
        except _Spent:
            return best_of(found, method), f"{setting}: over the budget of evaluations"
        except SolveFailed as failure:
            return best_of(found, method), f"{setting}: {failure}"
        error = problem.error(solution.ys[-1])
        if math.isfinite(error):  # steps too large for a method: the next ones are smaller
            nfe = solution.stats.nfe_forward
            found.append({"setting": setting, "nfe": nfe, "ms": 1000 * statistics.median(seconds), "error": error})
    return best_of(found, method), "the sweep is over"


def best_of(points: list[dict[str, Any]], method: Method) -> list[dict[str, Any]]:
    """For implicit_adams the points that none beats in evaluations and error at once; for others all."""
    if method.name != "implicit_adams":
        return points
    kept: list[dict[str, Any]] = []
    for point in sorted(points, key=lambda point: (point["nfe"], point["error"])):
        if not kept or point["error"] < kept[-1]["error"]:
            kept.append(point)
    return kept


class _Spent(Exception):
    """The budget of evaluations is spent."""


class _Budget:
    """A field that may be evaluated only so often."""

    def __init__(self, field: Dynamics, left: int) -> None:
        self.field = field
        self.left = left

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        if self.left == 0:
            raise _Spent
        self.left -= 1
        return self.field(t, y)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--solvers", nargs="+", help="by name (default: every one)")
    parser.add_argument("--max-nfe", type=int, default=10_000, help="evaluations in a solve (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="solves that are timed (default: %(default)s)")
    parser.add_argument("--engine", choices=ENGINES.names(), default="torchdiffeq")
    options, record = parse(__doc__, __file__, arguments, parser, BENCHMARKS / "solvers")
    if options.quick:
        options.max_nfe, options.repeats = 200, 1
    torch.set_num_threads(1)
    engine = ENGINES.build(ENGINES.schema(options.engine)())
    chosen = {n: m for n, m in methods(engine).items() if not options.solvers or n in options.solvers}
    if not chosen:
        parser.error(f"--solvers: choose from {', '.join(methods(engine))}")
    results: dict[str, dict[str, Any]] = {}
    for name in options.problems:
        problem = PROBLEMS[name]()
        results[name] = {}
        for solver, method in chosen.items():
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Functional iteration did not converge")
                points, end = measure(engine, method, problem, options.max_nfe, options.repeats)
            results[name][solver] = {"adaptive": method.adaptive, "points": points, "ended_by": end}
            finest = min((point["error"] for point in points), default=float("nan"))
            print(f"{name} {solver}: {len(points)} points, finest error {finest:.1e}", flush=True)
    setting = (
        f"Engine {options.engine}, at most {options.max_nfe} evaluations a solve; times are medians of "
        f"{options.repeats} solves, or of as many as {ENOUGH_S:g} s allow."
    )
    record.add("The cheapest three", setting, cheapest(results))
    for name, lines in results.items():
        record.add(name, rows=table(lines), figures={name: draw(name, lines)})
    record.write(results, torch.device("cpu"), "float64")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
