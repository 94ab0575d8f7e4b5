"""Training: the loop, optimisers, schedules, checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from node_runner.registry import Registry


if TYPE_CHECKING:
    from torch.optim import Optimizer

OPTIMIZERS: Registry[Optimizer] = Registry("optimizer", "node_runner.training.optimizers", "OPTIMIZERS")
SCHEDULES: Registry[Callable[[int], float]] = Registry("schedule", "node_runner.training.schedules", "SCHEDULES")
