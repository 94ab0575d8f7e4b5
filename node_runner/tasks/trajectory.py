"""Trajectory regression: predict every state from the first."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from node_runner.batches import TrajectoryBatch
from node_runner.errors import ConfigError
from node_runner.learning import Regulariser, StepOutput
from node_runner.settings import TrainerConfig
from node_runner.tasks.parts.batches import Ahead, Shuffled, Windows
from node_runner.tasks.parts.penalty import penalised
from node_runner.tasks.parts.placed import Placed
from node_runner.tasks.parts.segments import Segments, growing, whole, window_lengths
from node_runner.views import DataSpec, Equation, Trajectories, View


NUMBERS_READY = 2**18
"""Numbers in the batches that lie ready: 1 MiB in float32, so that they stay in a cache."""


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
        self._std = Placed(spec.std)

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
            ConfigError: the window is longer than the trajectories, or these have gaps on uneven times.
        """
        if config.window is None and config.window_start is None:
            shuffled = Shuffled(len(part), config.batch_size, seed, part.device)
            return shuffled.steps_per_epoch, lambda step: whole(part, shuffled(step))
        full, start = window_lengths(config, len(part.ts))
        segments = Segments(part)
        lengths = segments.lengths
        if segments.begins is not None and not segments.even:
            setting = "window_start" if config.window is None else "window"
            raise ConfigError(f"trainer.{setting}={getattr(config, setting)}: segments must start where a state was "
                              f"observed, and these trajectories have gaps and uneven times; use trainer.{setting}=null"
                              )  # fmt: skip
        size = config.batch_size or len(part)
        windows = Windows(lengths, size, full, seed, part.device, shared_start=not segments.even)
        length = growing(start, full, config.curriculum_share, progress)

        def ahead(step: int) -> dict[int, TrajectoryBatch]:
            """The batches of the steps from this one on that are equally long, as many as may lie ready."""
            points = length(step)
            most = min(windows.left(step), max(1, NUMBERS_READY // (size * points * part.ys.shape[-1])))
            count = next((n for n in range(1, most) if length(step + n) != points), most)
            return dict(enumerate(segments(*windows(step, count, points), points), step))

        return windows.steps_per_epoch, Ahead(ahead)

    def step(self, model: nn.Module, batch: TrajectoryBatch) -> StepOutput:
        """Loss and scalars of one batch."""
        output = model(batch.ys[0], batch.ts, batch.t0)
        total, scalars = penalised(lambda: self._loss(output.value, batch), output, self.regularisers)
        return StepOutput(total, scalars, output.solves)

    def _loss(self, ys: Tensor, batch: TrajectoryBatch) -> Tensor:
        """Mean squared error () of states (T, B, D), in units of the data's variance."""
        error = (ys[1:] - batch.ys[1:]) / self._std.like(batch.ys)
        if batch.mask is None:
            return error.pow(2).mean()
        seen = batch.mask[1:].unsqueeze(-1)
        # Selected, not multiplied by zero: what was not observed may be NaN.
        squares = torch.where(seen, error, 0).pow(2)
        return squares.sum() / (seen.sum() * error.shape[-1]).clamp(min=1)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, part: Trajectories, batch_size: int) -> dict[str, float]:
        """Loss, mse and relative_rmse over whole trajectories, and the mean evaluations of a solve.

        Where the data set has an energy, also energy_drift (of heat: heat_drift): how far the energy of a predicted
        trajectory gets from that of its first state, at the most, as a share of that state's energy; both means over
        the trajectories.
        A model's scalars, such as parameters that have a meaning, come along under their names; where the true values
        are known, parameter_error is the largest error of one of them, as a share of its value.
        """
        sums = torch.zeros(4, dtype=torch.float64)
        drift = torch.zeros(2, dtype=torch.float64)
        named: dict[str, float] = {}
        nfe, solves = 0, 0
        jumps: list[Tensor] = []
        for rows in part.rows().split(batch_size):
            batch = whole(part, rows)
            output = model(batch.ys[0], batch.ts, batch.t0)
            sums += self._sums(output.value, batch)
            if self.spec.energy is not None:
                energy = self.spec.energy(output.value.double())  # (T, B)
                drift += torch.stack(((energy - energy[0]).abs().amax(dim=0).sum(), energy[0].abs().sum())).cpu()
            for name, value in output.scalars.items():
                named[name] = named.get(name, 0.0) + float(value) * len(rows) / len(part)
            nfe += output.nfe
            solves += 1
            if part.events is not None and output.events is not None:
                jumps.append(event_errors(output.events, part.events[rows], float(part.ts[-1])))
        loss, mse, power = (sums[:3] / sums[3].clamp(min=1)).tolist()
        most, energies = drift.tolist()
        return {
            "loss": loss,
            "mse": mse,
            "relative_rmse": math.sqrt(_share(mse, power)),
            "nfe": nfe / max(solves, 1),
            **({} if self.spec.energy is None else {f"{self.spec.conserved}_drift": _share(most, energies)}),
            **named,
            **parameter_error(named, self.spec.equation),
            **event_metrics(jumps, len(part)),
        }

    def _sums(self, ys: Tensor, batch: TrajectoryBatch) -> Tensor:
        """(4,) on the CPU: squares of the standardised error, of the error and of the truth, and the numbers seen."""
        truth = batch.ys[1:].double()
        mask = torch.ones_like(truth, dtype=torch.bool) if batch.mask is None else batch.mask[1:].unsqueeze(-1)
        seen = mask.expand_as(truth)
        error = ys[1:].double() - truth
        squares = [torch.where(seen, x, 0).pow(2).sum() for x in (error / self.spec.std.to(error), error, truth)]
        return torch.stack((*squares, seen.sum())).cpu()


def _share(part: float, whole: float) -> float:
    """The share, infinite of nothing."""
    return part / whole if whole > 0 else math.inf


def parameter_error(found: Mapping[str, float], equation: Equation | None) -> dict[str, float]:
    """The largest |found / true - 1| of an equation's parameters (|found| where the truth is 0); nothing without."""
    truth = {} if equation is None else equation.truth
    errors = [abs(found[name] - true) / (abs(true) or 1.0) for name, true in truth.items() if name in found]
    return {"parameter_error": max(errors)} if errors else {}


def event_errors(predicted: Tensor, true: Tensor, end: float) -> Tensor:
    """(3,) on the CPU: sum of |error| of the events' times, true events, sum of |error| of their number.

    The k-th predicted event (B, K') belongs to the k-th true one (B, K); -1 stands for none. One that is not
    predicted counts as predicted at the end.
    """
    short = max(0, true.shape[1] - predicted.shape[1])
    matched = torch.nn.functional.pad(predicted, (0, short), value=-1.0)[:, : true.shape[1]].double()
    late = torch.where(matched >= 0, matched, end) - true
    real = true >= 0
    counts = (predicted >= 0).sum(dim=1) - real.sum(dim=1)
    return torch.stack((torch.where(real, late, 0).abs().sum(), real.sum(), counts.abs().sum().double())).cpu()


def event_metrics(batches: list[Tensor], count: int) -> dict[str, float]:
    """Mean error of an event's time, and of the number of events in a trajectory; nothing without events."""
    if not batches:
        return {}
    time, events, number = torch.stack(batches).sum(dim=0).tolist()
    return {"event_time_error": time / max(events, 1), "event_count_error": number / max(count, 1)}
