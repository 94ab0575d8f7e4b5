"""Does everything that trains on a CPU train on a CUDA GPU, with the same numbers, and at what cost?

    python scripts/gpu_check.py                                   # on a machine with a CUDA GPU; minutes
    PYTHONPATH=. python scripts/gpu_check.py                      # in a checkout that is not installed
    python scripts/gpu_check.py --device cpu --quick              # the check itself, checked on a CPU

Method. Five parts. (a) Every pair of {spiral, oscillator, lotka-volterra, mnist} and {node, augmented, cnf} trains for
20 steps on the CPU and on the GPU, in float64 and in float32, from the same seed: initial weights and batches are
drawn on the CPU for every device, and for this check the noise of flows too. (b) Peak memory of one forward and
backward pass with adjoint=off, on and seminorm as its steps grow, as in bench_adjoint.py. (c) Every solver with
every adjoint: one solve and its gradient on both devices, in float64. (d) One epoch of the convolutional ODE-Net on
MNIST with adjoint=off and on, through the same `run` as `node-run`, and once more with device.tf32=true.
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
import importlib.util
import itertools
import logging
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from gpu_memory import check_memory
from gpu_part import Part, say
from gpu_solvers import check_solvers
from gpu_training import check_training
from recording import ROOT, Record, markdown, mnist_missing, parse

from node_runner.config import compose_run
from node_runner.runs.run import run


PAIRS = tuple(itertools.product(("spiral", "oscillator", "lotka-volterra", "mnist"), ("node", "augmented", "cnf")))


# --- (d) an epoch of the ODE-Net -----------------------------------------------------------------------


def check_odenet(options: argparse.Namespace) -> Part:
    """(d)."""
    reason = mnist_missing()
    if reason and options.odenet_dataset == "mnist":
        return Part("left out", f"Not run, since {reason}.")
    rows = []
    for adjoint, tf32 in options.odenet_cases:
        overrides = [
            f"dataset={options.odenet_dataset}", "model=node", "field=conv", f"adjoint={adjoint}",
            f"device={options.device}", f"device.tf32={tf32}", "trainer.steps=null", "trainer.epochs=1",
            *options.odenet,
        ]  # fmt: skip
        config = compose_run(overrides)
        with tempfile.TemporaryDirectory() as folder:
            result = run(config, Path(folder), live=False)
        metrics, totals = result["metrics"], result["totals"]
        rows.append(
            {
                "adjoint": adjoint,
                "device.tf32": tf32,
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
    options.odenet_cases = (("off", False), ("on", False), ("off", True))
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
