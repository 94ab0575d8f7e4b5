"""Does everything that trains on a CPU train on a CUDA GPU, with the same numbers, and at what cost?

    python scripts/gpu_check.py                                   # on a machine with a CUDA GPU; minutes
    PYTHONPATH=. python scripts/gpu_check.py                      # in a checkout that is not installed
    python scripts/gpu_check.py --device cpu --quick              # the check itself, checked on a CPU

Method. Five parts. (a) Every pair of {spiral, oscillator, lotka-volterra, mnist} and {node, augmented, cnf} trains for
20 steps on the CPU and on the GPU, in float64 and in float32, from the same seed: initial weights and batches are
drawn on the CPU for every device, and for this check the noise of flows too. (b) Peak memory of one forward and
backward pass with adjoint=off, on and seminorm as its steps grow, as in bench_adjoint.py. (c) Every solver with
every adjoint: one solve and its gradient on both devices, in float64. (d) One epoch of the convolutional ODE-Net on
MNIST with adjoint=off and on, through the same `run` as `node-run`, and once more with convolutions in full float32.
(e) The tests that need a GPU.

Reading. (a) passes in float64 where the losses of the first 10 steps agree to 1e-6 of their size and every solve of
these steps took exactly as many evaluations; the differences over all steps are given beside it. In float32 the
first loss must agree to 1e-4 and the evaluations over all steps to 5 %: rounding differs from device to device, and
training amplifies it. (b) passes where the slope of `off` in the steps is above ten times that of the others. (c)
passes where state and gradient agree to 1e-8; pairs that the runner refuses are counted, with the reason. (d)
passes where all runs complete and reach 95 % of correct labels. A part that cannot be run here says why and does
not count as failed.

Limits. Times are those of one run each. In (a) a step at which the error estimate of a solve falls on its tolerance
to within rounding can tip over on one device only: then evaluations differ by one step without a fault.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import itertools
import logging
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import bench_adjoint
import torch
from matplotlib.figure import Figure
from recording import ROOT, Record, markdown, mnist_missing, parse, text
from torch import Tensor

from node_runner.adjoints import ADJOINTS
from node_runner.assemble import assemble
from node_runner.config import RunConfig, compose_run
from node_runner.engines import ENGINES
from node_runner.errors import ConfigError
from node_runner.fields import FIELDS
from node_runner.reporting.figures.style import clean, sheet, style
from node_runner.reporting.run_folder import RunFolder
from node_runner.run import make_trainer, run
from node_runner.settings import Place, Precision, ToleranceConfig
from node_runner.solvers import SOLVERS
from node_runner.solving import Solve, Tolerances


PAIRS = tuple(itertools.product(("spiral", "oscillator", "lotka-volterra", "mnist"), ("node", "augmented", "cnf")))
FIRST = 10
"""Steps of (a) that must agree closely."""


@dataclass
class Part:
    """One part of the check.

    Attributes:
        status: passed, failed, or left out.
        summary: in one sentence.
        rows: its table.
        figures: by name.
        seconds: it took.
    """

    status: str
    summary: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    figures: dict[str, Figure] = field(default_factory=dict)
    seconds: float = 0.0


# --- (a) the same training on both devices -----------------------------------------------------------


class Trace:
    """A reporter that keeps the loss and the evaluations of every step."""

    def __init__(self) -> None:
        self.loss: list[float] = []
        self.nfe: list[int] = []

    def begin(self, step: int, total: int) -> None:
        """Nothing to do."""

    def step(self, step: int) -> None:
        """Nothing to do."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        if "train/loss" in values:
            self.loss.append(values["train/loss"])
            self.nfe.append(round(values["nfe/forward"] + values["nfe/backward"]))


@contextmanager
def noise_of_the_cpu() -> Iterator[None]:
    """Within this block noise is drawn by the CPU's generator, the same for every device."""

    def drawn_there(draw: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def here(*args: Any, device: torch.device | None = None, **kwargs: Any) -> Tensor:
            like = args[0] if args and isinstance(args[0], Tensor) else None
            target = like.device if like is not None else device
            return draw(*(a.cpu() if isinstance(a, Tensor) else a for a in args), **kwargs).to(target)

        return here

    names = ("rand_like", "randn_like", "randint")
    replaced = {name: drawn_there(getattr(torch, name)) for name in names}
    with patch.multiple(torch, **replaced):
        yield


def short_run(dataset: str, model: str, options: argparse.Namespace) -> RunConfig:
    """A short training, without validation until its end."""
    steps = options.train_steps
    overrides = [
        f"dataset={dataset}", f"model={model}", f"trainer.steps={steps}", "trainer.epochs=null",
        "trainer.log_every=1", f"trainer.eval_every={steps + 1}", *options.training,
    ]  # fmt: skip
    if dataset == "mnist":
        overrides += ["dataset.train=2000", "dataset.val=100", "dataset.test=100"]
    return compose_run(overrides)


def train(config: RunConfig, device: str, precision: str) -> Trace:
    """What every step of a run brought, on a device and in a precision."""
    config = copy.deepcopy(config)
    config.device.place, config.device.precision = Place(device), Precision(precision)
    experiment = assemble(config)
    trace = Trace()
    with tempfile.TemporaryDirectory() as folder, noise_of_the_cpu():
        trainer = make_trainer(experiment, RunFolder(Path(folder)))
        trainer.reporters = [trace]
        state = trainer.train()
    if state.status != "completed":  # the trainer has caught a Ctrl-C
        raise KeyboardInterrupt
    return trace


def compare(config: RunConfig, precision: str, options: argparse.Namespace) -> dict[str, Any]:
    """The same training on the CPU and on the device."""
    here, there = (train(config, place, precision) for place in ("cpu", options.device))
    differences = [abs(b - a) / max(abs(a), 1e-12) for a, b in zip(here.loss, there.loss, strict=True)]
    first = differences[:FIRST]
    if precision == "float64":
        same = max(first) <= 1e-6 and here.nfe[:FIRST] == there.nfe[:FIRST]
    else:
        same = first[0] <= 1e-4 and abs(sum(there.nfe) / sum(here.nfe) - 1) <= 0.05
    return {
        "pair": f"{config.dataset.name} x {config.model.name}",
        "precision": precision,
        "same": same,
        "loss, step 1": here.loss[0],
        f"loss, step {options.train_steps}": here.loss[-1],
        f"largest difference, first {FIRST}": max(first),
        "largest difference, all": max(differences),
        "NFE, CPU": sum(here.nfe),
        f"NFE, {options.device}": sum(there.nfe),
        "steps with other NFE": sum(a != b for a, b in zip(here.nfe, there.nfe, strict=True)),
    }


def check_training(options: argparse.Namespace) -> Part:
    """(a)."""
    reason = mnist_missing() if any(dataset == "mnist" for dataset, _ in options.pairs) else None
    rows = []
    for dataset, model in options.pairs:
        if dataset == "mnist" and reason:
            continue
        config = short_run(dataset, model, options)
        for precision in options.precisions:
            rows.append(compare(config, precision, options))
            say(rows[-1])
    different = [f"{row['pair']} in {row['precision']}" for row in rows if not row["same"]]
    summary = f"{len(rows)} trainings of {options.train_steps} steps on the CPU and on {options.device}: " + (
        f"different: {', '.join(different)}" if different else "all the same"
    )
    if reason:
        summary += f"; mnist left out, since {reason}"
    return Part("failed" if different else "passed", f"{summary}.", rows)


# --- (b) memory --------------------------------------------------------------------------------------


def check_memory(options: argparse.Namespace) -> Part:
    """(b)."""
    sizes = {"rk4": options.memory_steps, "dopri5": options.memory_times}
    results = []
    for solver, adjoints in bench_adjoint.ADJOINTS_OF.items():
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
        (solver, adjoint): bench_adjoint.fit(bench_adjoint.select(results, solver, adjoint), key)[1]
        for solver, adjoints in bench_adjoint.ADJOINTS_OF.items()
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
        for axes, (solver, adjoints) in zip(figure.subplots(1, 2), bench_adjoint.ADJOINTS_OF.items(), strict=True):
            clean(axes, grid=True)
            for adjoint in adjoints:
                bench_adjoint.draw_memory(axes, bench_adjoint.select(results, solver, adjoint), adjoint)
            axes.set(title=solver, xlabel="accepted steps", ylabel="MiB")
            axes.legend()
    return figure


# --- (c) solvers and adjoints ------------------------------------------------------------------------


def solve_once(engine: str, solver: str, adjoint: str, device: str, outputs: int, rtol: float) -> Tensor:
    """Final state and gradient of one solve, flat, on the CPU."""
    torch.manual_seed(0)
    method = SOLVERS.build(SOLVERS.schema(solver)(), solver)
    tolerances = Tolerances(ToleranceConfig(rtol=rtol, atol=rtol / 100))
    solve = Solve(
        ENGINES.build(ENGINES.schema(engine)()), method, ADJOINTS.build(ADJOINTS.schema(adjoint)()), tolerances
    )
    network = FIELDS.build(FIELDS.schema("mlp")(width=16), (2,)).double().to(device)
    y0 = torch.randn(8, 2, dtype=torch.float64).to(device).requires_grad_()
    ts = torch.linspace(0, 1, outputs, dtype=torch.float64, device=device)
    ys = solve(network, y0, ts).ys
    ys.pow(2).mean().backward()
    parts = [ys[-1], y0.grad, *(p.grad for p in network.parameters())]
    return torch.cat([part.detach().reshape(-1).cpu() for part in parts if part is not None])


def check_solvers(options: argparse.Namespace) -> Part:
    """(c)."""
    rows = []
    for engine in ENGINES.names():
        for solver in SOLVERS.names():
            for adjoint in ADJOINTS.names():
                row: dict[str, Any] = {"engine": engine, "solver": solver, "adjoint": adjoint}
                try:
                    here = solve_once(engine, solver, adjoint, "cpu", *options.solves)
                    there = solve_once(engine, solver, adjoint, options.device, *options.solves)
                    difference = float((there - here).norm() / here.norm())
                    row |= {"result": "same" if difference <= 1e-8 else "different", "difference": difference}
                except ConfigError as refusal:
                    row |= {"result": "refused", "difference": None, "reason": str(refusal)}
                except Exception as error:
                    row |= {"result": "broken", "difference": None, "reason": f"{type(error).__name__}: {error}"}
                rows.append({"reason": "", **row})
    counts = {result: sum(row["result"] == result for row in rows) for result in ("same", "refused")}
    wrong = [f"{r['engine']} {r['solver']} {r['adjoint']}" for r in rows if r["result"] not in counts]
    summary = f"{counts['same']} the same on the CPU and on {options.device}, {counts['refused']} refused"
    if wrong:
        summary += f"; different or broken: {', '.join(wrong)}"
    columns = ("engine", "solver", "adjoint", "result", "difference", "reason")
    ordered = [{key: row[key] for key in columns} for row in rows]
    return Part("failed" if wrong else "passed", f"{summary}.", ordered)


# --- (d) an epoch of the ODE-Net -----------------------------------------------------------------------


@contextmanager
def convolutions_in_tf32(allowed: bool) -> Iterator[None]:
    """Within this block float32 convolutions of cuDNN may, or may not, round their factors to TF32's 11 bits."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def check_odenet(options: argparse.Namespace) -> Part:
    """(d)."""
    reason = mnist_missing()
    if reason and options.odenet_dataset == "mnist":
        return Part("left out", f"Not run, since {reason}.")
    rows = []
    for adjoint, tf32 in options.odenet_cases:
        overrides = [
            f"dataset={options.odenet_dataset}", "model=node", "field=conv", f"adjoint={adjoint}",
            f"device={options.device}", "trainer.steps=null", "trainer.epochs=1", *options.odenet,
        ]  # fmt: skip
        config = compose_run(overrides)
        with tempfile.TemporaryDirectory() as folder, convolutions_in_tf32(tf32):
            result = run(config, Path(folder), live=False)
        metrics, totals = result["metrics"], result["totals"]
        rows.append(
            {
                "adjoint": adjoint,
                "convolutions": "TF32" if tf32 and options.device == "cuda" else "float32",
                "status": result["status"],
                "seconds of training": totals["seconds"],
                "ms a step": 1000 * totals["seconds"] / totals["steps"],
                "steps": totals["steps"],
                "test accuracy": f"{metrics['test/accuracy']:.4f}",
                "NFE forward a step": totals["nfe_forward"] / totals["steps"],
                "NFE backward a step": totals["nfe_backward"] / totals["steps"],
                "peak, MiB": metrics["memory/peak_mb"],
                "saved, MiB": metrics["memory/saved_mb"],
                "parameters": result["parameters"],
            }
        )
        say(rows[-1])
    passed = all(row["status"] == "completed" for row in rows)
    if not options.quick:
        passed &= all(float(row["test accuracy"]) >= 0.95 for row in rows)
    summary = f"One epoch, batch {config.trainer.batch_size}, rtol {config.tolerance.rtol:g}, float32."
    return Part("passed" if passed else "failed", summary, rows)


# --- (e) the tests that need a GPU -----------------------------------------------------------------------


def check_tests(options: argparse.Namespace) -> Part:
    """(e)."""
    if options.quick:
        return Part("left out", "Not run, because of --quick.")
    if importlib.util.find_spec("pytest") is None:
        return Part("left out", "Not run, since pytest is not installed.")
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", "tests"]
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    last = lines[-1].strip("= ") if lines else "no output"
    if done.returncode == 5:
        return Part("left out", f"There are no tests marked gpu ({last}).")
    if done.returncode:
        print(done.stdout[-4000:], done.stderr[-2000:], sep="\n")
    return Part("failed" if done.returncode else "passed", f"pytest -m gpu: {last}.")


# --- all of it -------------------------------------------------------------------------------------------


PARTS: dict[str, tuple[str, Callable[[argparse.Namespace], Part]]] = {
    "a": ("(a) Training on both devices", check_training),
    "b": ("(b) Memory as steps grow", check_memory),
    "c": ("(c) Solvers and adjoints", check_solvers),
    "d": ("(d) An epoch of the ODE-Net", check_odenet),
    "e": ("(e) Tests that need a GPU", check_tests),
}


def say(row: Mapping[str, Any]) -> None:
    """One line of progress."""
    print("  " + ", ".join(f"{key} {text(value)}" for key, value in row.items()), flush=True)


def check(options: argparse.Namespace, record: Record) -> tuple[dict[str, Any], bool]:
    """Every part that was asked for: results by part, and whether none failed."""
    results: dict[str, Any] = {}
    overview = []
    parts: list[tuple[str, Part]] = []
    for key in options.parts:
        heading, function = PARTS[key]
        print(heading, flush=True)
        began = time.perf_counter()
        try:
            part = function(options)
        except Exception as error:
            traceback.print_exc()
            part = Part("failed", f"{type(error).__name__}: {error}")
        part.seconds = time.perf_counter() - began
        print(f"  {part.status}: {part.summary}", flush=True)
        parts.append((heading, part))
        overview.append({"part": heading, "status": part.status, "seconds": part.seconds, "summary": part.summary})
        results[key] = {"status": part.status, "summary": part.summary, "seconds": part.seconds, "rows": part.rows}
    record.add("Result", rows=overview)
    for heading, part in parts:
        record.add(heading, part.summary, part.rows, part.figures)
    print("\n" + markdown(overview))
    return results, all(part.status != "failed" for _, part in parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Check and record; 0 where nothing failed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu checks this script itself")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="default: all")
    options, record = parse(__doc__, __file__, arguments, parser, ROOT / "experiments" / "gpu_check")
    if options.device == "cuda" and not torch.cuda.is_available():
        print("gpu_check: no CUDA GPU is visible to PyTorch here; nothing was checked (--device cpu --quick tries the "
              "check itself)", file=sys.stderr)  # fmt: skip
        return 1
    options.pairs, options.precisions, options.train_steps = PAIRS, ("float64", "float32"), 20
    options.memory_steps, options.memory_times, options.memory_batch = (20, 80, 320), (1.0, 4.0, 16.0), 1024
    options.training, options.solves = [], (5, 1e-4)
    options.odenet_dataset, options.odenet = "mnist", ["trainer.batch_size=256"]
    # TF32 is PyTorch's default for convolutions on a GPU that has it.
    options.odenet_cases = (("off", True), ("on", True), ("off", False))
    if options.quick:
        # The digits of scikit-learn stand for MNIST.
        options.pairs = (("spiral", "node"), ("spiral", "augmented"), ("digits", "cnf"))
        options.precisions, options.train_steps, options.odenet_cases = ("float64",), 2, (("off", False),)
        options.memory_steps, options.memory_times, options.memory_batch = (4, 8), (0.5, 1.0), 16
        options.training, options.solves, options.odenet_dataset = ["trainer.batch_size=16"], (3, 1e-3), "digits"
        options.odenet = ["trainer.batch_size=16", "model.state=8", "dataset.train=32", "dataset.val=16",
                          "dataset.test=16"]  # fmt: skip
    logging.getLogger("node_runner").setLevel(logging.WARNING)
    results, passed = check(options, record)
    record.write(results, torch.device(options.device), "float64 and float32")
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main())
