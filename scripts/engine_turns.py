"""Contestants that take turns in one process, so that what disturbs the machine disturbs them alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence

import torch
from engine_peers import Contestant

from node_runner.runtime import synchronise


ROUND_S = 0.2
"""Seconds that a contestant's turn lasts at least."""


def take_turns(contestants: Sequence[Contestant], rounds: int, device: torch.device) -> list[list[float]]:
    """Milliseconds of a step for each contestant, one number a round. A round before the first is not counted."""
    times: list[list[float]] = [[] for _ in contestants]
    counts = [1] * len(contestants)
    for number in range(rounds + 1):
        for index, entrant in enumerate(contestants):
            gc.collect()
            gc.disable()
            began = time.perf_counter()
            for _ in range(counts[index]):
                entrant.step()
            synchronise(device)
            passed = (time.perf_counter() - began) / counts[index]
            gc.enable()
            if number == 0:
                counts[index] = max(1, round(ROUND_S / passed))
            else:
                times[index].append(1000 * passed)
    return times
