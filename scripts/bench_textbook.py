"""How long does the textbook run take from the command line, everything counted, beside a bare torchdiffeq script?

    python scripts/bench_textbook.py

Method. Whole processes, in turns: `textbook_torchdiffeq.py`, a script of forty lines that keeps nothing; `node-run`
with an empty cache, so that it compiles; and `node-run` again with what that left. Both train 250 epochs on the same
trajectory of 160 points with the same network, tolerance and optimiser. `node-run` also validates, draws its figures,
tests beyond the training horizon, and writes TensorBoard, checkpoints and results. Wall time from start to exit,
imports included; medians.

Reading. The difference to the time in training is what starting Python and PyTorch costs, and the figures.

Limits. It is one size of problem, the smallest; a longer training gains more.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from bars import bars
from matplotlib.figure import Figure
from recording import BENCHMARKS, ROOT, parse


OVERRIDES = (
    "dataset.form=cubic", "dataset.start=[[2.0,0.0]]", "dataset.times=160", "dataset.horizon=7", "dataset.val=1",
    "dataset.test=1", "dataset.long=1", "field.width=32", "field.depth=1", "field.activation=tanh",
    "tolerance.rtol=1e-3", "tolerance.atol=1e-4", "trainer.window=null", "trainer.steps=250", "trainer.average=null",
    "trainer.eval_every=50", "schedule=constant",
)  # fmt: skip


def timed(command: Sequence[str], environment: dict[str, str]) -> float:
    """Seconds from start to exit."""
    began = time.perf_counter()
    subprocess.run(command, check=True, cwd=ROOT, env=environment, capture_output=True)
    return time.perf_counter() - began


def draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """A bar a command."""
    names, seconds = [row["command"] for row in rows], [row["seconds"] for row in rows]
    return bars(names, seconds, title="the textbook run, from start to exit", unit="s", height=2.4)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    options, record = parse(__doc__, __file__, arguments, parser, BENCHMARKS / "textbook")
    overrides = list(OVERRIDES)
    if options.quick:
        options.rounds = 1
        overrides += ["trainer.steps=2", "trainer.eval_every=2"]
    seconds: dict[str, list[float]] = {"bare torchdiffeq": [], "node-run, empty cache": [], "node-run, again": []}
    training: list[float] = []
    script = str(ROOT / "scripts" / "textbook_torchdiffeq.py")
    for number in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            environment = {**os.environ, "NODE_RUNNER_CACHE": f"{folder}/cache", "OMP_NUM_THREADS": "1"}
            if not options.quick:
                seconds["bare torchdiffeq"].append(timed([sys.executable, script], environment))
            for name in ("node-run, empty cache", "node-run, again"):
                run = Path(folder) / name.replace(" ", "_")
                command = [sys.executable, "-m", "node_runner.cli.main", *overrides, f"hydra.run.dir='{run}'"]
                seconds[name].append(timed(command, environment))
            training.append(json.loads((run / "result.json").read_text())["totals"]["seconds"])
        print(f"round {number + 1} of {options.rounds}", flush=True)
    base = statistics.median(seconds["bare torchdiffeq"] or [float("nan")])
    rows: list[dict[str, Any]] = []
    for name, times in seconds.items():
        if times:
            median = statistics.median(times)
            rows.append({"command": name, "seconds": median, "smallest": min(times), "largest": max(times),
                         "times as fast": base / median})  # fmt: skip
    text = f"Of the last one, {statistics.median(training):.2f} s are training."
    record.add("From start to exit", text, rows, {"seconds": draw(rows)})
    record.write({"seconds": seconds, "training": training, "overrides": overrides}, torch.device("cpu"), "float32")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
