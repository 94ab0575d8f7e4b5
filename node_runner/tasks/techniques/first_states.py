"""First states that are learned: noise in the observation from which a trajectory starts biases what follows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from node_runner.batches import TrajectoryBatch
from node_runner.errors import ConfigError
from node_runner.learning import StepOutput, Task
from node_runner.settings import TrainerConfig
from node_runner.tasks.parts.batches import Shuffled
from node_runner.tasks.parts.penalty import penalised
from node_runner.tasks.parts.placed import Placed
from node_runner.tasks.parts.segments import growing, whole, window_lengths
from node_runner.tasks.techniques.around import Around
from node_runner.tasks.trajectory import TrajectoryRegression
from node_runner.views import Trajectories


QUIET = 1e-3
"""Noise, as a share of the data's deviation, below which less of it gives no more weight."""


class InitialValues(nn.Module):
    """Numbers that are learned for each trajectory: where it starts, in standard deviations of the data.

    Args:
        values: (N, D...) from which learning starts.
    """

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.values = nn.Parameter(values)

    def forward(self, rows: Tensor) -> Tensor:
        """Those (B, D...) of the trajectories `rows` (B,)."""
        return self.values.index_select(0, rows)


class LearnedFirstStates(Around):
    """Trajectory regression from first states that are learned with the model, where observations have noise.

    A prediction that starts at a noisy observation carries its error along, and what is learned is biased by it.
    Here the first state of every training trajectory is a parameter, and its observation one like all others: the
    loss is the negative log-likelihood of independent Gaussian noise of unknown size on each axis, log |error|
    (RMS, in standard deviations of the data), mean over the axes. Whole trajectories are learned, from their start up
    to where the curriculum is (trainer.window_start, trainer.curriculum_share). Evaluation starts at observations.
    The scalar "noise" is the RMS error, in standard deviations of the data: in the end that of the noise.

    Args:
        task: that makes the batches and evaluates.
        config: of the training.
        model: gets the first states (N, D), as what is added to the first observations.
        part: the training trajectories.

    Raises:
        ConfigError: no trajectories, or a setting that does not go with it.

    Source: Bock, Recent advances in parameter identification techniques for ODE (1983), for initial values among the
    parameters; Bard, Nonlinear Parameter Estimation (1974), for the likelihood with unknown noise.
    """

    def __init__(self, task: Task, config: TrainerConfig, model: nn.Module | None, part: Any) -> None:
        if config.shooting is not None:
            raise ConfigError(
                f"trainer.shooting={config.shooting} learns the first states of all segments: "
                "use trainer.first_states=given"
            )
        refuse_given("trainer.first_states=learned", "trainer.first_states=given", part, config)
        assert isinstance(task, TrajectoryRegression), "what trajectories are learned by"
        give_first_states(model, torch.zeros_like(part.ys[:, 0]))
        super().__init__(task)
        self.regularisers, self._std = task.regularisers, Placed(task.spec.std)

    def batches(
        self, part: Trajectories, config: TrainerConfig, seed: int, progress: Callable[[int], float]
    ) -> tuple[int, Callable[[int], TrajectoryBatch]]:
        """Steps in an epoch, and the batch of each step: whole trajectories, or how much of them is learned by then."""
        full, start = window_lengths(config, len(part.ts))
        shuffled = Shuffled(len(part), config.batch_size, seed, part.device)
        length = growing(start, full, config.curriculum_share, progress)

        def batch(step: int) -> TrajectoryBatch:
            points, seen = length(step), whole(part, shuffled(step))
            mask = None if seen.mask is None else seen.mask[:points]
            return seen._replace(ts=seen.ts[:points], ys=seen.ys[:points], mask=mask)

        return shuffled.steps_per_epoch, batch

    def step(self, model: nn.Module, batch: TrajectoryBatch) -> StepOutput:
        """Loss and scalars of one batch."""
        assert batch.rows is not None, "whole trajectories know which they are"
        std = self._std.like(batch.ys)
        output = model(batch.ys[0] + model.first_states(batch.rows) * std, batch.ts, batch.t0)  # type: ignore[operator]
        squares = mean_squares((output.value - batch.ys) / std, batch.mask)
        total, scalars = penalised(lambda: (squares + QUIET**2).log().mean() / 2, output, self.regularisers)
        return StepOutput(total, scalars | {"noise": squares.detach().mean().sqrt()}, output.solves)


def mean_squares(error: Tensor, mask: Tensor | None) -> Tensor:
    """(D,) mean square of errors (T, B, D), of those that are observed in `mask` (T, B)."""
    if mask is None:
        return error.pow(2).mean(dim=(0, 1))
    seen = mask.unsqueeze(-1)
    return torch.where(seen, error, 0).pow(2).sum(dim=(0, 1)) / seen.sum().clamp(min=1)


def give_first_states(model: nn.Module | None, values: Tensor) -> None:
    """Let a model's parameters include first states, which start at `values` (N, D...)."""
    assert model is not None, "somebody has to own the first states"
    model.first_states = InitialValues(values)


def refuse_given(setting: str, without: str, part: Any, config: TrainerConfig) -> None:
    """See that a training part has first states that can be learned, and that no other setting has its way with them.

    Args:
        setting: that learns them, such as trainer.first_states=learned.
        without: the setting that does not.
        part: the training data.
        config: of the training.

    Raises:
        ConfigError: no trajectories, windows, whose start would be no first state, or noise on first states.
    """
    if not isinstance(part, Trajectories):
        raise ConfigError(f"{setting}: only trajectories have first states; use {without}")
    if config.window is not None:
        raise ConfigError(
            f"{setting} starts every trajectory where it begins, and trainer.window={config.window} cuts segments "
            f"out of it: use trainer.window=null, or {without}"
        )
    if config.input_noise:
        raise ConfigError(
            f"trainer.input_noise={config.input_noise:g} is added to given first states, and {setting} takes noise "
            "out of them: use one of the two"
        )
