"""Derivative matching: a warm start that fits the field to the slopes of trajectories."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from node_runner.batches import TrajectoryBatch
from node_runner.errors import ConfigError
from node_runner.learning import Task
from node_runner.settings import TrainerConfig
from node_runner.tasks.parts.placed import Placed
from node_runner.tasks.techniques.warm_start import WarmStart
from node_runner.views import DataSpec, View


class MatchedDerivatives(WarmStart):
    """A task on trajectories whose first steps match derivatives.

    At every inner observation of a segment the field is to have the slope of the parabola through it and its two
    neighbours (order 2 in the spacing). The loss is the mean squared error in standard deviations of the data per
    unit of time. A model of which there is more to match than a field, such as jumps, does it by a method
    `mismatch(batch)` -> ().

    Args:
        task: what is trained afterwards.
        spec: of the data.
        steps: that are matched.
        model: that is trained.

    Raises:
        ConfigError: data without trajectories, or a model without a field.

    Source: Varah, A spline least squares method for numerical parameter estimation in differential equations (1982);
    as a warm start of neural ODEs, Roesch, Rackauckas, Stumpf, Collocation based training of neural ordinary
    differential equations (2021).
    """

    scalar = "derivative_matching"

    def __init__(self, task: Task, spec: DataSpec, steps: int, model: nn.Module | None) -> None:
        if spec.view is not View.trajectories:
            raise ConfigError(
                f"trainer.warm_start={steps} matches derivatives of trajectories, and dataset={spec.dataset} is "
                f"learned as {spec.view.value}: use trainer.warm_start=0"
            )
        if not hasattr(model, "mismatch") and not hasattr(model, "vector_field"):
            raise ConfigError(
                f"trainer.warm_start={steps}: this model has no field in the data's units; use trainer.warm_start=0"
            )
        super().__init__(task, steps)
        self._std = Placed(spec.std)

    def batches(
        self, part: Any, config: TrainerConfig, seed: int, progress: Callable[[int], float]
    ) -> tuple[int, Callable[[int], Any]]:
        """As the task's, the first `steps` of them to be matched.

        Raises:
            ConfigError: segments of fewer than three points, which have no inner one.
        """
        length = min(config.window_start or config.window or len(part.ts), len(part.ts))
        if length < 3:
            raise ConfigError(
                f"trainer.warm_start={self.steps} needs segments of at least 3 points, got {length}: "
                "use a longer trainer.window, or trainer.warm_start=0"
            )
        return super().batches(part, config, seed, progress)

    def match(self, model: nn.Module, batch: TrajectoryBatch) -> Tensor:
        """Mean squared error () of the slopes, or the model's own mismatch."""
        if hasattr(model, "mismatch"):
            own: Tensor = model.mismatch(batch)  # type: ignore[operator]
            return own
        ys = batch.ys[1:-1]
        times = batch.ts[1:-1].unsqueeze(1) + batch.t0
        found = model.vector_field(times.flatten(), ys.flatten(0, 1))  # type: ignore[operator]
        error = (found.unflatten(0, ys.shape[:2]) - slopes(batch.ts, batch.ys)) / self._std.like(ys)
        if batch.mask is None:
            return error.pow(2).mean()
        seen = (batch.mask[:-2] & batch.mask[1:-1] & batch.mask[2:]).unsqueeze(-1)
        return torch.where(seen, error, 0).pow(2).sum() / (seen.sum() * error.shape[-1]).clamp(min=1)


def slopes(ts: Tensor, ys: Tensor) -> Tensor:
    """(T - 2, B, D) derivatives at the inner times of ys (T, B, D), exact for parabolas on any spacing ts (T,)."""
    before, after = (step[:, None, None] for step in (ts[1:-1] - ts[:-2], ts[2:] - ts[1:-1]))
    backward, forward = (ys[1:-1] - ys[:-2]) / before, (ys[2:] - ys[1:-1]) / after
    return (after * backward + before * forward) / (before + after)
