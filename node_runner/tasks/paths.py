"""Path classification: to which class does an irregularly observed series belong?"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from node_runner.errors import ConfigError
from node_runner.learning import Regulariser, StepOutput
from node_runner.settings import TrainerConfig
from node_runner.tasks.batches import Shuffled
from node_runner.tasks.penalty import penalised
from node_runner.views import DataSpec, PathBatch, Series, View


class PathClassification:
    """Cross-entropy in nats; accuracy as a share of 1."""

    name = "path classification"
    view = View.paths

    def __init__(self, spec: DataSpec, regularisers: Mapping[str, Regulariser]) -> None:
        self.spec = spec
        self.regularisers = regularisers

    def batches(
        self, part: Series, config: TrainerConfig, seed: int, progress: Callable[[int], float]
    ) -> tuple[int, Callable[[int], PathBatch]]:
        """Steps in an epoch, and the batch of each step: whole series."""
        del progress
        shuffled = Shuffled(len(part), config.batch_size, seed, part.ys.device)
        return shuffled.steps_per_epoch, lambda step: path_batch(part, shuffled(step))

    def step(self, model: nn.Module, batch: PathBatch) -> StepOutput:
        """Loss and scalars of one batch."""
        output = model(batch.ts, batch.values, batch.seen)
        hits = (output.value.argmax(dim=1) == batch.y).mean(dtype=output.value.dtype)
        total, scalars = penalised(lambda: F.cross_entropy(output.value, batch.y), output, self.regularisers)
        return StepOutput(total, {**scalars, "accuracy": hits}, output.solves)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, part: Series, batch_size: int) -> dict[str, float]:
        """Loss, accuracy and the mean evaluations of a batch over the whole part."""
        sums = torch.zeros(2, dtype=torch.float64)
        nfe, batches = 0, 0
        for rows in torch.arange(len(part), device=part.ys.device).split(batch_size):
            batch = path_batch(part, rows)
            output = model(batch.ts, batch.values, batch.seen)
            loss = F.cross_entropy(output.value, batch.y, reduction="sum")
            hits = (output.value.argmax(dim=1) == batch.y).sum()
            sums += torch.stack((loss.double(), hits.double())).cpu()
            nfe += sum(stats.nfe_forward for stats in output.solves)
            batches += 1
        loss_mean, accuracy = (sums / len(part)).tolist()
        return {"loss": loss_mean, "accuracy": accuracy, "nfe": nfe / max(batches, 1)}


def path_batch(part: Series, rows: Tensor) -> PathBatch:
    """Series `rows` (B,), (T, B, D), with nothing left of the values that a model may not see.

    Raises:
        ConfigError: the series have no classes.
    """
    if part.labels is None:
        raise ConfigError("these series have no classes; use a data set that offers the view 'paths'")
    seen = part.seen.index_select(0, rows).transpose(0, 1)
    values = torch.where(seen, part.ys.index_select(0, rows).transpose(0, 1), 0)
    return PathBatch(part.ts, values, seen, part.labels.index_select(0, rows))
