"""Schedules of the learning rate: a factor on it for each optimiser step."""

from __future__ import annotations

import math
from collections.abc import Callable

from node_runner.settings import Positive, Share
from node_runner.training import SCHEDULES


Factor = Callable[[int], float]
"""Factor on the learning rate of step 0, 1, ..."""


@SCHEDULES.register("constant", "the learning rate as it is")
def constant(total: int, /) -> Factor:
    """The learning rate as it is."""
    del total
    return lambda step: 1.0


@SCHEDULES.register("cosine", "half a cosine down to a small share of the rate, after a rise from zero if you like")
def cosine(total: int, /, *, final: Share = 0.01, warmup: Share = 0.0) -> Factor:
    """Half a cosine from 1 down to `final`, after a linear warm-up over a share of the steps.

    Args:
        total: optimiser steps of the run.
        final: factor on the rate at the end.
        warmup: share of the steps in which the rate rises from zero.
    """
    rise = round(warmup * total)

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        share = min(1.0, (step - rise) / max(1, total - rise))
        return final + (1 - final) * (1 + math.cos(math.pi * share)) / 2

    return factor


@SCHEDULES.register("step", "a factor on the rate at some places of the run")
def step(total: int, /, *, drops: list[float] = [0.375, 0.625, 0.875], factor: Positive = 0.1) -> Factor:  # noqa: B006
    """Multiply the rate by `factor` at each of `drops`, which are shares of the run.

    The defaults are those of torchdiffeq's ODE-Net example: epochs 60, 100 and 140 of 160.

    Args:
        total: optimiser steps of the run.
        drops: where the rate is multiplied, as shares of the run.
        factor: by which it is multiplied each time.
    """
    places = [share * total for share in drops]
    return lambda step: factor ** sum(step >= place for place in places)


@SCHEDULES.register("warmup", "a linear rise from zero, then the learning rate as it is")
def warmup(total: int, /, *, share: Share = 0.05) -> Factor:
    """Rise linearly from zero over a share of the steps, then stay.

    Args:
        total: optimiser steps of the run.
        share: part of the steps in which the rate rises.
    """
    rise = max(1, round(share * total))
    return lambda step: min(1.0, (step + 1) / rise)
