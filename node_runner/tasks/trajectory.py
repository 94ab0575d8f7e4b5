"""Trajectory regression: predict every state from the first."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from node_runner.errors import ConfigError
from node_runner.settings import TrainerConfig
from node_runner.tasks.batches import Shuffled, Windows
from node_runner.tasks.penalty import penalised
from node_runner.types import DataSpec, Regulariser, StepOutput, Trajectories, TrajectoryBatch, View


class TrajectoryRegression:
    """Mean squared error of the predicted states.

    train/loss and val/loss are in units of the training data's variance, axis by axis; mse is in
    the data's own units squared; relative_rmse is |error| / |truth|, both as RMS over all states.
    The first state of a segment is given, so it does not count in any of them.
    """

    name = "trajectory regression"
    view = View.trajectories

    def __init__(self, spec: DataSpec, regularisers: Mapping[str, Regulariser]) -> None:
        self.spec = spec
        self.regularisers = regularisers

    def batches(
        self, part: Trajectories, config: TrainerConfig, seed: int, progress: Callable[[int], float]
    ) -> tuple[int, Callable[[int], TrajectoryBatch]]:
        """Steps in an epoch, and the batch of each step.

        Args:
            part: the training part, on the device.
            config: batch size, window and curriculum.
            seed: of the choice.
            progress: share of the training that is done before a step, for the curriculum.

        Raises:
            ConfigError: the window is longer than the trajectories.
        """
        times = len(part.ts)
        if config.window is None and config.window_start is None:
            shuffled = Shuffled(len(part), config.batch_size, seed, part.ys.device)
            return shuffled.steps_per_epoch, lambda step: whole(part, shuffled(step))
        full = config.window or times
        start = config.window_start or full
        if full > times:
            raise ConfigError(f"trainer.window={full}: trajectories have only {times} points; use trainer.window=null")
        if start > full:
            raise ConfigError(f"trainer.window_start={start}: expected at most trainer.window={full}")
        lengths = torch.full((len(part),), times) if part.mask is None else part.mask.sum(dim=1)
        spacing = part.ts.diff()
        even = bool(torch.allclose(spacing, spacing[0].expand_as(spacing), rtol=1e-4))
        size = config.batch_size or len(part)
        windows = Windows(lengths, size, full, seed, part.ys.device, shared_start=not even)

        def batch(step: int) -> TrajectoryBatch:
            share = min(1.0, progress(step) / config.curriculum_share) if config.curriculum_share else 1.0
            length = round(start + (full - start) * share)
            rows, first = windows(step, length)
            return segments(part, rows, first, length)

        return windows.steps_per_epoch, batch

    def step(self, model: nn.Module, batch: TrajectoryBatch) -> StepOutput:
        """Loss and scalars of one batch."""
        output = model(batch.ys[0], batch.ts, batch.t0)
        error = (output.value[1:] - batch.ys[1:]) / self.spec.std.to(batch.ys)
        if batch.mask is None:
            loss = error.pow(2).mean()
        else:
            seen = batch.mask[1:].unsqueeze(-1)
            # Selected, not multiplied by zero: what was not observed may be NaN.
            squares = torch.where(seen, error, 0).pow(2)
            loss = squares.sum() / (seen.sum() * error.shape[-1]).clamp(min=1)
        total, scalars = penalised(loss, output, self.regularisers)
        return StepOutput(total, {"loss": loss.detach(), **scalars}, output.solves)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, part: Trajectories, batch_size: int) -> dict[str, float]:
        """Loss, mse and relative_rmse over whole trajectories, and the mean evaluations of a solve."""
        squares = torch.zeros(3, dtype=torch.float64)  # of standardised error, error, truth
        observed, nfe, solves = 0.0, 0, 0
        for rows in torch.arange(len(part), device=part.ys.device).split(batch_size):
            batch = whole(part, rows)
            output = model(batch.ys[0], batch.ts, batch.t0)
            truth = batch.ys[1:].double()
            mask = torch.ones_like(truth, dtype=torch.bool) if batch.mask is None else batch.mask[1:].unsqueeze(-1)
            seen = mask.expand_as(truth)
            error = output.value[1:].double() - truth
            scaled = error / self.spec.std.to(error)
            sums = [torch.where(seen, x, 0).pow(2).sum() for x in (scaled, error, truth)]
            squares += torch.stack(sums).cpu()
            observed += float(seen.sum())
            nfe += sum(stats.nfe_forward for stats in output.solves)
            solves += 1
        loss, mse, power = (squares / max(observed, 1)).tolist()
        return {
            "loss": loss,
            "mse": mse,
            "relative_rmse": math.sqrt(mse / power) if power > 0 else math.inf,
            "nfe": nfe / max(solves, 1),
        }


def whole(part: Trajectories, rows: Tensor) -> TrajectoryBatch:
    """Whole trajectories, (T, B, D)."""
    mask = None if part.mask is None else part.mask[rows].T
    t0 = part.ts[:1].expand(len(rows))
    return TrajectoryBatch(part.ts - part.ts[0], t0, part.ys[rows].transpose(0, 1), mask)


def segments(part: Trajectories, rows: Tensor, first: Tensor, length: int) -> TrajectoryBatch:
    """Segments of `length` points that start at index `first` (B,) of trajectories `rows` (B,).

    All segments get the times of the first one, relative to its start: the caller has seen to it
    that they agree.
    """
    columns = first.unsqueeze(1) + torch.arange(length, device=rows.device)
    ys = part.ys[rows.unsqueeze(1), columns].transpose(0, 1)
    mask = None if part.mask is None else part.mask[rows.unsqueeze(1), columns].T
    if length == len(part.ts):
        ts = part.ts - part.ts[0]
    else:
        ts = part.ts[columns[0]] - part.ts[columns[0, 0]]
    return TrajectoryBatch(ts, part.ts[first], ys, mask)
