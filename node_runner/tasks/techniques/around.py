"""Tasks that wrap another task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from node_runner.learning import Task
from node_runner.settings import TrainerConfig


class Around:
    """A task that changes how another is trained, and keeps its name, view, evaluation and, by default, its batches.

    Args:
        task: that is wrapped.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.name, self.view, self.evaluate = task.name, task.view, task.evaluate

    def batches(
        self, part: Any, config: TrainerConfig, seed: int, progress: Callable[[int], float]
    ) -> tuple[int, Callable[[int], Any]]:
        """Steps in an epoch, and the batch of each step: those of the wrapped task."""
        return self.task.batches(part, config, seed, progress)
