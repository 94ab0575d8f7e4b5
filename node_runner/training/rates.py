"""The learning rate of each step."""

from __future__ import annotations

from collections.abc import Callable

import torch


class LearningRate:
    """Sets an optimiser's learning rate: its own, times a factor that depends on the step alone.

    Args:
        optimizer: whose rate is set.
        factor: for step 0, 1, ...
    """

    def __init__(self, optimizer: torch.optim.Optimizer, factor: Callable[[int], float]) -> None:
        self._optimizer = optimizer
        self._rates = [float(group["lr"]) for group in optimizer.param_groups]
        self._factor = factor

    def at(self, step: int) -> float:
        """The rate of a step (of the first group, where an optimiser has several)."""
        return self._rates[0] * self._factor(step)

    def set(self, step: int) -> None:
        """Let the optimiser take this step at its rate."""
        factor = self._factor(step)
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
