"""Classification: a label for each example."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from node_runner.batches import LabelledBatch
from node_runner.learning import ModelOutput, Regulariser, StepOutput
from node_runner.settings import TrainerConfig
from node_runner.tasks.parts.batches import Shuffled
from node_runner.tasks.parts.penalty import penalised
from node_runner.views import DataSpec, View


class Classification:
    """Cross-entropy in nats; accuracy as a share of 1."""

    name = "classification"
    view = View.labelled

    def __init__(self, spec: DataSpec, regularisers: Mapping[str, Regulariser]) -> None:
        self.spec = spec
        self.regularisers = regularisers

    def batches(
        self, part: Any, config: TrainerConfig, seed: int, progress: Callable[[int], float]
    ) -> tuple[int, Callable[[int], Any]]:
        """Steps in an epoch, and the batch of each step."""
        del progress
        shuffled = Shuffled(len(part), config.batch_size, seed, part.device)
        return shuffled.steps_per_epoch, lambda step: self._batch(part, shuffled(step))

    def step(self, model: nn.Module, batch: Any) -> StepOutput:
        """Loss and scalars of one batch."""
        output = self._classify(model, batch)
        hits = (output.value.argmax(dim=1) == batch.y).mean(dtype=output.value.dtype)
        total, scalars = penalised(lambda: F.cross_entropy(output.value, batch.y), output, self.regularisers)
        return StepOutput(total, {**scalars, "accuracy": hits}, output.solves)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, part: Any, batch_size: int) -> dict[str, float]:
        """Loss, accuracy and the mean evaluations of a solve over the whole part."""
        sums = torch.zeros(2, dtype=torch.float64)
        nfe, solves = 0, 0
        for rows in part.rows().split(batch_size):
            batch = self._batch(part, rows)
            output = self._classify(model, batch)
            loss = F.cross_entropy(output.value, batch.y, reduction="sum")
            hits = (output.value.argmax(dim=1) == batch.y).sum()
            sums += torch.stack((loss.double(), hits.double())).cpu()
            nfe += output.nfe
            solves += 1
        loss_mean, accuracy = (sums / len(part)).tolist()
        return {"loss": loss_mean, "accuracy": accuracy, "nfe": nfe / solves}

    def _batch(self, part: Any, rows: Tensor) -> Any:
        return LabelledBatch(part.x.index_select(0, rows), part.y.index_select(0, rows))

    def _classify(self, model: nn.Module, batch: Any) -> ModelOutput:
        output: ModelOutput = model(batch.x)
        return output
