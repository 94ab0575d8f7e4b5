"""Flow matching as a warm start: the first steps of a density's training fit the field to straight lines."""

from __future__ import annotations

from torch import Tensor, nn

from node_runner.batches import PointBatch
from node_runner.errors import ConfigError
from node_runner.learning import Task
from node_runner.tasks.density import dequantised
from node_runner.tasks.techniques.warm_start import WarmStart
from node_runner.views import DataSpec


class MatchedLines(WarmStart):
    """A density whose first steps are those of model=flow_matching.

    The loss is the model's `matching_loss`. Then comes the likelihood. They have one evaluation of the field each, and
    no trace to estimate.

    Args:
        task: what is trained afterwards.
        spec: of the points.
        steps: that are matched.
        model: that is trained.

    Raises:
        ConfigError: the model cannot be matched.
    """

    scalar = "flow_matching"

    def __init__(self, task: Task, spec: DataSpec, steps: int, model: nn.Module | None) -> None:
        if not hasattr(model, "matching_loss"):
            raise ConfigError(
                f"trainer.warm_start={steps}: this model has no objective without a solve; use trainer.warm_start=0"
            )
        super().__init__(task, steps)
        self.levels = spec.levels

    def match(self, model: nn.Module, batch: PointBatch) -> Tensor:
        """The model's objective () of flow matching."""
        loss: Tensor = model.matching_loss(dequantised(batch.x, self.levels))  # type: ignore[operator]
        return loss
