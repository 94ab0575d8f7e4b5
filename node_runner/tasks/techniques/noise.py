"""Noise on the inputs of training, a plain regulariser."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from node_runner.batches import TrajectoryBatch
from node_runner.errors import ConfigError
from node_runner.learning import StepOutput, Task
from node_runner.tasks.parts.placed import Placed
from node_runner.tasks.techniques.around import Around
from node_runner.views import DataSpec, View


class InputNoise(Around):
    """A task whose training adds Gaussian noise to what the model is given: first states, examples, points.

    Later states of trajectories are targets and stay as they are; evaluation has no noise. The scalar
    "input_noise" is the noise's RMS, as a share like `size`.

    Args:
        task: what is trained otherwise.
        spec: of the data.
        size: standard deviation of the noise, as a share of the training data's (axis by axis where they have axes).

    Raises:
        ConfigError: grey levels as points, which a flow maps only between the first and the last level; series.

    Source: Bishop, Training with Noise is Equivalent to Tikhonov Regularization (1995).
    """

    def __init__(self, task: Task, spec: DataSpec, size: float) -> None:
        if spec.levels:
            raise ConfigError(
                f"trainer.input_noise={size:g} would push grey levels of dataset={spec.dataset} beyond their range, "
                "and they are dequantised with noise anyway: use trainer.input_noise=0"
            )
        if spec.view in (View.series, View.paths, View.processes):
            raise ConfigError(
                f"trainer.input_noise={size:g} is for first states, examples and points, and dataset={spec.dataset} is "
                f"learned as {spec.view.value}: use trainer.input_noise=0"
            )
        super().__init__(task)
        self.size, self._std = size, Placed(spec.std)

    def step(self, model: nn.Module, batch: Any) -> StepOutput:
        """Loss and scalars of one batch, with noise on its inputs."""
        trajectories = isinstance(batch, TrajectoryBatch)
        noise = self.size * torch.randn_like(batch.ys[0] if trajectories else batch.x)
        change = noise * self._std.like(noise)
        if trajectories:
            noisy = batch._replace(ys=torch.cat(((batch.ys[0] + change).unsqueeze(0), batch.ys[1:])))
        else:
            noisy = batch._replace(x=batch.x + change)
        output = self.task.step(model, noisy)
        return output._replace(scalars={**output.scalars, "input_noise": noise.pow(2).mean().sqrt()})
