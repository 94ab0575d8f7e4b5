"""What does the changed import gain the script that everybody begins with, torchdiffeq's examples/ode_demo.py?

    python scripts/bench_drop_in.py
    python scripts/bench_drop_in.py --rounds 3 --steps 100

Method. The demo's training: its field `net(y ** 3)`, 2-50-2 with tanh; batches of 20 pieces of 10 times, states
(20, 1, 2), from a trajectory of 1000 points; mean absolute error, RMSprop, float32, and the default tolerances,
rtol 1e-7 and atol 1e-9. `odeint` and `odeint_adjoint` of torchdiffeq and of node_runner train in turns in one process,
each from the same weights and on the same batches, in rounds. After each round the whole trajectory is predicted from
(2, 0), as the demo does it now and then, with a state (1, 2). Processor time of the process, one thread, so that other
work on the machine matters less; medians of the rounds.

Reading. A step is batch, solve, loss, gradient and update. x is torchdiffeq's time over node_runner's with the same
function. First call: processor time of the first step of all, in which engine=native compiles, since its cache is
empty. At a tolerance near float32's rounding the losses differ by half a per cent, torchdiffeq's own two as much as the
others, and the predictions of a field that is hardly trained by more.

Limits. One field, one size, one machine; what the demo prints and draws is left out.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
import torchdiffeq
from bars import bars
from matplotlib.figure import Figure
from recording import BENCHMARKS, parse
from torch import Tensor, nn

import node_runner


MATRIX = torch.tensor([[-0.1, 2.0], [-2.0, -0.1]])
START = torch.tensor([[2.0, 0.0]])
TIMES = torch.linspace(0.0, 25.0, 1000)
PIECES, LENGTH = 20, 10

CONTESTANTS = [(module, name) for name in ("odeint", "odeint_adjoint") for module in (torchdiffeq, node_runner)]


class Field(nn.Module):
    """That of the demo."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 50), nn.Tanh(), nn.Linear(50, 2))
        for layer in self.net:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, mean=0, std=0.1)
                nn.init.zeros_(layer.bias)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """(..., 2) -> (..., 2)."""
        return self.net(y**3)


class Round(NamedTuple):
    """Seconds of the first step, milliseconds of each further one and of a prediction, and the errors at the end."""

    first: float
    step: float
    prediction: float
    loss: float
    error: float


def seconds() -> float:
    """Processor time of this process and of the compilers that it ran."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def train(odeint: Callable[..., Tensor], truth: Tensor, steps: int) -> Round:
    """One round of a contestant."""
    torch.manual_seed(42)
    field = Field()
    optimizer = torch.optim.RMSprop(field.parameters(), lr=1e-3)

    def step() -> float:
        optimizer.zero_grad()
        starts = torch.randperm(len(TIMES) - LENGTH)[:PIECES]
        pieces = torch.stack([truth[starts + i] for i in range(LENGTH)])
        loss = (odeint(field, pieces[0], TIMES[:LENGTH]) - pieces).abs().mean()
        loss.backward()
        optimizer.step()
        return loss.item()

    clocks = [seconds()]
    step()
    clocks.append(seconds())
    losses = [step() for _ in range(steps)]
    clocks.append(seconds())
    with torch.no_grad():
        odeint(field, START, TIMES)
        clocks.append(seconds())
        error = (odeint(field, START, TIMES) - truth).abs().mean().item()
    clocks.append(seconds())
    first, training, _, prediction = (after - before for before, after in pairwise(clocks))
    return Round(first, 1000 * training / steps, 1000 * prediction, statistics.mean(losses[-steps // 10 :]), error)


def rows_of(found: Sequence[Sequence[Round]]) -> list[dict[str, Any]]:
    """A line a contestant."""
    rows = []
    for number, ((module, name), rounds) in enumerate(zip(CONTESTANTS, found, strict=True)):
        step, prediction, loss, error = (statistics.median(values) for values in list(zip(*rounds, strict=True))[1:])
        base = statistics.median(r.step for r in found[number - number % 2])
        rows.append({"contestant": f"{module.__name__}.{name}", "step, ms": step, "x": base / step,
                     "prediction, ms": prediction, "first call, s": rounds[0].first, "loss": loss,
                     "error of the prediction": error})  # fmt: skip
    return rows


def draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """A bar a contestant."""
    names, steps = [row["contestant"] for row in rows], [row["step, ms"] for row in rows]
    title = "a training step of torchdiffeq's demo"
    return bars(names, steps, title=title, unit="ms of a processor", height=2.6, scale="log")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--steps", type=int, default=100, help="of a round (default: %(default)s)")
    options, record = parse(__doc__, __file__, arguments, parser, BENCHMARKS / "drop_in")
    if options.quick:
        options.rounds, options.steps = 1, 2
    torch.set_num_threads(1)
    with torch.no_grad():
        truth = torchdiffeq.odeint(lambda t, y: y**3 @ MATRIX, START, TIMES)
    found: list[list[Round]] = [[] for _ in CONTESTANTS]
    with tempfile.TemporaryDirectory() as folder:
        with patch.dict(os.environ, {} if options.quick else {"NODE_RUNNER_CACHE": folder}):
            for number in range(options.rounds):
                for rounds, (module, name) in zip(found, CONTESTANTS, strict=True):
                    rounds.append(train(getattr(module, name), truth, options.steps))
                print(f"round {number + 1} of {options.rounds}", flush=True)
    rows = rows_of(found)
    explained = node_runner.explain(Field(), START.expand(PIECES, 1, 2), TIMES[:LENGTH])
    record.add("A training step", f"`node_runner.explain` says: {explained}.", rows, {"steps": draw(rows)})
    results = {row["contestant"]: [r._asdict() for r in rounds] for row, rounds in zip(rows, found, strict=True)}
    record.write(results, torch.device("cpu"), "float32")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
