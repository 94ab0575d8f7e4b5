"""How long a small and a convolutional solve take here, with one thread and with all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from node_runner.engines import ENGINES
from node_runner.fields import FIELDS
from node_runner.runtime import default_threads
from node_runner.solvers import SOLVERS
from node_runner.types import Engine


REPEATS = 5
BUDGET_S = 1.0
"""Seconds after which no further solve begins: more threads than free cores can be very slow."""

WORTH = 0.9
"""Share of the time with one thread that more threads must stay below to be recommended."""


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one training step's solve and gradient, by number of threads."""

    name: str
    what: str
    ms: dict[int, float]


def time_threads() -> Iterator[Timing]:
    """Measure both solves; torch's number of threads is as before afterwards."""
    before = torch.get_num_threads()
    counts = sorted({1, default_threads()})
    try:
        for name, what, step in (_small(), _convolutional()):
            ms = {}
            for threads in counts:
                torch.set_num_threads(threads)
                ms[threads] = _fastest(step)
            yield Timing(name, what, ms)
    finally:
        torch.set_num_threads(before)


def recommend(timing: Timing) -> int:
    """The number of threads to use: more than one only if it is clearly faster."""
    best = min(timing.ms, key=lambda threads: timing.ms[threads])
    return best if timing.ms[best] < WORTH * timing.ms[1] else 1


def _fastest(step: Callable[[], None]) -> float:
    times: list[float] = []  # the first one allocates, and is seldom the fastest
    while len(times) <= REPEATS and sum(times) < BUDGET_S:
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    return 1000 * min(times)


def _small() -> tuple[str, str, Callable[[], None]]:
    field = FIELDS.get("mlp")((2,), width=64, depth=2)
    what = "64 states of 2 numbers, field 2-64-64-2, dopri5 over [0, 1], and its gradient"
    return "small solve", what, _step(field, (64, 2))


def _convolutional() -> tuple[str, str, Callable[[], None]]:
    field = FIELDS.get("conv")((64, 6, 6))
    what = "16 states of 64 x 6 x 6, the ODE-Net's field, dopri5 over [0, 1], and its gradient"
    return "convolutional solve", what, _step(field, (16, 64, 6, 6))


def _step(field: nn.Module, shape: tuple[int, ...]) -> Callable[[], None]:
    method = SOLVERS.get("dopri5")("dopri5")
    engine: Engine = ENGINES.get("torchdiffeq")()
    y0 = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    ts: Tensor = torch.tensor([0.0, 1.0])

    def step() -> None:
        solution = engine.integrate(method, field, y0, ts, rtol=1e-4, atol=1e-5, norm=None)
        solution.ys[-1].pow(2).mean().backward()

    return step
