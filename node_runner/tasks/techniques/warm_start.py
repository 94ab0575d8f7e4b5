"""A warm start: the first steps of a training match the model to the data without a solve."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from node_runner.learning import StepOutput, Task
from node_runner.settings import TrainerConfig
from node_runner.tasks.techniques.around import Around


class Matched(NamedTuple):
    """A batch that is matched, not solved."""

    batch: Any


class WarmStart(Around, abc.ABC):
    """A task of which the first `steps` steps are of another kind: nfe is 0 in them. Then it goes on as it is.

    Args:
        task: what is trained afterwards.
        steps: that are matched.

    Attributes:
        scalar: name under which the loss of these steps is repeated.
    """

    scalar: ClassVar[str]

    def __init__(self, task: Task, steps: int) -> None:
        super().__init__(task)
        self.steps = steps

    @abc.abstractmethod
    def match(self, model: nn.Module, batch: Any) -> Tensor:
        """Loss () of a batch without a solve."""

    def batches(
        self, part: Any, config: TrainerConfig, seed: int, progress: Callable[[int], float]
    ) -> tuple[int, Callable[[int], Any]]:
        """As the task's, the first `steps` of them to be matched."""
        per_epoch, batch = super().batches(part, config, seed, progress)
        return per_epoch, lambda step: Matched(batch(step)) if step < self.steps else batch(step)

    def step(self, model: nn.Module, batch: Any) -> StepOutput:
        """Loss and scalars of one batch."""
        if not isinstance(batch, Matched):
            return self.task.step(model, batch)
        loss = self.match(model, batch.batch)
        return StepOutput(loss, {"loss": loss.detach(), self.scalar: loss.detach()}, [])
