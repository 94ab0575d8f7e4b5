"""Series regression: predict what was not observed, between observations and after them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from node_runner.batches import Lesson, SeriesBatch
from node_runner.learning import Regulariser, StepOutput
from node_runner.settings import TrainerConfig
from node_runner.tasks.parts.batches import Shuffled
from node_runner.tasks.parts.penalty import penalised
from node_runner.tasks.parts.placed import Placed
from node_runner.views import DataSpec, Series, View


class SeriesRegression:
    """Mean squared error of predictions wherever a value is known.

    train/loss (of models without an objective of their own) and val/loss are in units of the training data's
    variance, channel by channel. Of whole parts there are besides, in the data's own units: `mse`; its shares
    `interpolation_mse`, up to the last time at which anything may be seen, and `extrapolation_mse`, after it; and
    `reconstruction_mse`, of the values that were seen. A part that has no such values has no such metric.
    """

    name = "series regression"
    view = View.series

    def __init__(self, spec: DataSpec, regularisers: Mapping[str, Regulariser]) -> None:
        self.spec = spec
        self.regularisers = regularisers
        self._std = Placed(spec.std)

    def batches(
        self, part: Series, config: TrainerConfig, seed: int, progress: Callable[[int], float]
    ) -> tuple[int, Callable[[int], SeriesBatch]]:
        """Steps in an epoch, and the batch of each step: whole series."""
        shuffled = Shuffled(len(part), config.batch_size, seed, part.device)
        return shuffled.steps_per_epoch, lambda step: series_batch(part, shuffled(step), progress(step))

    def step(self, model: nn.Module, batch: SeriesBatch) -> StepOutput:
        """Loss and scalars of one batch."""
        output = model(batch.ts, batch.values, batch.seen, batch.lesson)
        total, scalars = penalised(lambda: self._loss(output.value, batch.lesson), output, self.regularisers)
        return StepOutput(total, scalars, output.solves)

    def _loss(self, ys: Tensor, lesson: Lesson) -> Tensor:
        """Mean squared error () of predictions (T, B, D), in units of the data's variance."""
        error = torch.where(lesson.known, (ys - lesson.target) / self._std.like(ys), 0)
        return error.pow(2).sum() / lesson.known.sum().clamp(min=1)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, part: Series, batch_size: int) -> dict[str, float]:
        """Loss, mse and its shares, the error of extrapolation as a root, and the mean evaluations of a batch."""
        sums = torch.zeros(5, 2, dtype=torch.float64)  # of squares and of counts: loss, mse and its three shares
        end = part.last_seen
        nfe, batches = 0, 0
        for rows in part.rows().split(batch_size):
            batch = series_batch(part, rows)
            output = model(batch.ts, batch.values, batch.seen)
            target, known, _ = batch.lesson
            error = output.value.double() - target.double()
            scaled = error / self.spec.std.to(error)
            inside = (batch.times <= end).unsqueeze(2)
            shares = (known & inside, known & ~inside, known & batch.seen)
            terms = [(scaled, known), (error, known), *((error, share) for share in shares)]
            found = [torch.stack((torch.where(where, x, 0).pow(2).sum(), where.sum())) for x, where in terms]
            sums += torch.stack(found).cpu()
            nfe += output.nfe
            batches += 1
        names = ("loss", "mse", "interpolation_mse", "extrapolation_mse", "reconstruction_mse")
        means = {name: float(total / count) for name, (total, count) in zip(names, sums, strict=True) if count > 0}
        if "extrapolation_mse" in means:
            means["extrapolation_rmse"] = math.sqrt(means["extrapolation_mse"])
        return {**means, "nfe": nfe / max(batches, 1)}


def times_of(part: Series, rows: Tensor) -> Tensor:
    """Times (T,) that are shared, or (T, B) of series `rows` (B,), T the most that any of these has."""
    if part.ts.dim() == 1:
        return part.ts
    ts = part.ts.index_select(0, rows)
    most = int((ts < ts[:, -1:]).sum(dim=1).max()) + 1
    return ts[:, :most].T


def series_batch(part: Series, rows: Tensor, progress: float = 1.0) -> SeriesBatch:
    """Series `rows` (B,), (T, B, D), with nothing left of the values that a model may not see."""
    ts = times_of(part, rows)
    ys, seen, target, known = (
        x.index_select(0, rows)[:, : len(ts)].transpose(0, 1) for x in (part.ys, part.seen, part.target, part.known)
    )
    return SeriesBatch(ts, torch.where(seen, ys, 0), seen, Lesson(target, known, progress))
