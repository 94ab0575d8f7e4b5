"""Flow matching as a warm start: the first steps of a density's training fit the field to straight lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn

from node_runner.batches import PointBatch
from node_runner.errors import ConfigError
from node_runner.learning import StepOutput, Task
from node_runner.settings import TrainerConfig
from node_runner.tasks.around import Around
from node_runner.tasks.density import dequantised
from node_runner.views import DataSpec


class Matched(NamedTuple):
    """Points that are matched to lines, without a solve."""

    batch: PointBatch


class MatchedLines(Around):
    """A density whose first `steps` steps are those of model=flow_matching, which solve nothing.

    The loss is the model's `matching_loss`, repeated by the scalar "flow_matching", and nfe is 0. Then comes the
    likelihood. They have one evaluation of the field each, and no trace to estimate.

    Args:
        task: what is trained afterwards.
        spec: of the points.
        steps: that are matched.
    """

    def __init__(self, task: Task, spec: DataSpec, steps: int) -> None:
        super().__init__(task)
        self.levels, self.steps = spec.levels, steps

    def batches(
        self, part: Any, config: TrainerConfig, seed: int, progress: Callable[[int], float]
    ) -> tuple[int, Callable[[int], Any]]:
        """As the task's, the first `steps` of them to be matched."""
        per_epoch, batch = self.task.batches(part, config, seed, progress)
        return per_epoch, lambda step: Matched(batch(step)) if step < self.steps else batch(step)

    def step(self, model: nn.Module, batch: Any) -> StepOutput:
        """Loss and scalars of one batch.

        Raises:
            ConfigError: the model cannot be matched.
        """
        if not isinstance(batch, Matched):
            return self.task.step(model, batch)
        if not hasattr(model, "matching_loss"):
            raise ConfigError(
                "trainer.warm_start: this model has no objective without a solve; use trainer.warm_start=0"
            )
        loss = model.matching_loss(dequantised(batch.batch.x, self.levels))  # type: ignore[operator]
        return StepOutput(loss, {"loss": loss.detach(), "flow_matching": loss.detach()}, [])
