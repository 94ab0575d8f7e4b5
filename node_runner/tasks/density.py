"""Density estimation: maximum likelihood of points."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from node_runner.batches import PointBatch
from node_runner.learning import Regulariser, StepOutput
from node_runner.settings import TrainerConfig
from node_runner.tasks.parts.batches import Shuffled
from node_runner.tasks.parts.penalty import penalised
from node_runner.views import DataSpec, Points, View


class Density:
    """Negative log-likelihood in nats, in the units of the data; bits/dim too for grey levels.

    Grey levels are dequantised with uniform noise, so bits_per_dim bounds the discrete
    log-likelihood from above (Theis, van den Oord, Bethge, A note on the evaluation of generative
    models, 2016, section 3.1).
    """

    name = "density"
    view = View.points

    def __init__(self, spec: DataSpec, regularisers: Mapping[str, Regulariser]) -> None:
        self.spec = spec
        self.regularisers = regularisers

    def batches(
        self, part: Points, config: TrainerConfig, seed: int, progress: Callable[[int], float]
    ) -> tuple[int, Callable[[int], PointBatch]]:
        """Steps in an epoch, and the batch of each step."""
        del progress
        shuffled = Shuffled(len(part), config.batch_size, seed, part.device)
        return shuffled.steps_per_epoch, lambda step: PointBatch(part.x.index_select(0, shuffled(step)))

    def step(self, model: nn.Module, batch: PointBatch) -> StepOutput:
        """Loss and scalars of one batch."""
        output = model(self._continuous(batch.x))
        total, scalars = penalised(lambda: -output.value.mean(), output, self.regularisers)
        bits = self._bits(scalars["loss"]) if output.objective is None else {}
        return StepOutput(total, {**scalars, **bits}, output.solves)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, part: Points, batch_size: int) -> dict[str, float]:
        """Loss, nll, bits_per_dim (grey levels only), entropy of the true density (if known), mean nfe of a solve."""
        total, nfe, solves = torch.zeros((), dtype=torch.float64), 0, 0
        for rows in part.rows().split(batch_size):
            output = model(self._continuous(part.x[rows]))
            total -= output.value.double().sum().cpu()
            nfe += output.nfe
            solves += 1
        nll = total / len(part)
        bits = {name: float(value) for name, value in self._bits(nll).items()}
        entropy = {} if self.spec.entropy is None else {"entropy": self.spec.entropy}
        return {"loss": float(nll), "nll": float(nll), **entropy, **bits, "nfe": nfe / solves}

    def _continuous(self, x: Tensor) -> Tensor:
        return dequantised(x, self.spec.levels)

    def _bits(self, nll: Tensor) -> dict[str, Tensor]:
        if not self.spec.levels:
            return {}
        return {"bits_per_dim": nll / (self.spec.numel * math.log(2))}


def dequantised(x: Tensor, levels: int) -> Tensor:
    """Points (B, D) as a model sees them: grey levels with uniform noise, other data (levels 0) as they are."""
    return x + torch.rand_like(x) if levels else x
