"""Multiple shooting: long trajectories in short segments, whose first states are learned and whose gaps are closed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from node_runner.batches import TrajectoryBatch
from node_runner.errors import ConfigError
from node_runner.learning import StepOutput, Task
from node_runner.settings import TrainerConfig
from node_runner.tasks.parts.penalty import penalised
from node_runner.tasks.parts.placed import Placed
from node_runner.tasks.parts.segments import evenly_spaced
from node_runner.tasks.techniques.around import Around
from node_runner.tasks.techniques.first_states import give_first_states, refuse_given
from node_runner.views import DataSpec, Trajectories


class Shooting(Around):
    """A task on trajectories that are solved in segments of `shooting` points, all at once.

    The last point of a segment is the first of the next. Every segment starts from a state of its own, which is
    learned from the observation there on, so that noise in one observation does not spoil a segment. The loss is the
    mean squared error over all observations, and `continuity` times the mean squared gap between the end of a segment
    and the start of the next, both in units of the data's variance. The gap's root is the scalar "continuity".
    Evaluation solves whole trajectories from their first observation, as it does without.

    Args:
        task: what is trained otherwise.
        spec: of the data.
        config: with shooting, continuity and window.
        model: gets the first states (N, segments, D), in standard deviations about the mean of the data.
        part: the training trajectories.

    Raises:
        ConfigError: no trajectories, trajectories with gaps or uneven times, windows or a curriculum of them, noise
            on first states, or lengths that do not fit.

    Source: Bock and Plitt (1984); for neural ODEs Turan and Jaschke, Multiple shooting for training neural
    differential equations on time series (2021), and Massaroli et al., Differentiable Multiple Shooting Layers (2021).
    """

    def __init__(self, task: Task, spec: DataSpec, config: TrainerConfig, model: nn.Module | None, part: Any) -> None:
        assert config.shooting is not None
        about = f"trainer.shooting={config.shooting}"
        refuse_given(about, "trainer.shooting=null", part, config)
        if config.window_start is not None:
            raise ConfigError(f"{about} cuts whole trajectories, and trainer.window_start={config.window_start} begins "
                              "with less of them: use trainer.window_start=null")  # fmt: skip
        super().__init__(task)
        self.spec, self.weight = spec, config.continuity
        self.places = places(part, config.shooting)
        self._mean, self._std = Placed(spec.mean), Placed(spec.std)
        first = part.ys[:, self.places[:, 0]]
        give_first_states(model, (first - self._mean.like(first)) / self._std.like(first))

    def step(self, model: nn.Module, batch: TrajectoryBatch) -> StepOutput:
        """Loss and scalars of one batch."""
        assert batch.rows is not None, "whole trajectories know which they are"
        inside = self.places  # (S, L)
        count, length = inside.shape
        mean, std = self._mean.like(batch.ys), self._std.like(batch.ys)
        y0 = model.first_states(batch.rows) * std + mean  # type: ignore[operator]  # (B, S, D)
        ts = batch.ts[:length]
        t0 = batch.t0.unsqueeze(1) + batch.ts[inside[:, 0]]
        output = model(y0.flatten(0, 1), ts, t0.flatten())
        ys = output.value.unflatten(1, (-1, count))  # (L, B, S, D)
        observed = batch.ys[inside.T].transpose(1, 2)
        gap = ((ys[-1, :, :-1] - y0[:, 1:]) / std).pow(2)
        defect = gap.mean() if count > 1 else gap.sum()
        regularisers = self.task.regularisers  # type: ignore[attr-defined]
        total, scalars = penalised(lambda: ((ys - observed) / std).pow(2).mean(), output, regularisers)
        return StepOutput(
            total + self.weight * defect, {**scalars, "continuity": defect.detach().sqrt()}, output.solves
        )


def places(part: Trajectories, length: int) -> Tensor:
    """(S, L) the points of each segment, on the device of the part.

    Raises:
        ConfigError: segments of that length do not fill the trajectories, or cannot share a solve.
    """
    times = len(part.ts)
    about = f"trainer.shooting={length}"
    if part.mask is not None:
        raise ConfigError(f"{about} needs trajectories without gaps: use trainer.shooting=null")
    if not evenly_spaced(part.ts):
        raise ConfigError(f"{about} needs evenly spaced times, so that segments share a solve: use "
                          "trainer.shooting=null")  # fmt: skip
    if (times - 1) % (length - 1):
        fitting = [n for n in range(2, times + 1) if (times - 1) % (n - 1) == 0]
        near = sorted(sorted(fitting, key=lambda n: abs(n - length))[:2])
        raise ConfigError(f"{about} does not divide trajectories of {times} points: use {' or '.join(map(str, near))}")
    starts = torch.arange(0, times - 1, length - 1, device=part.ts.device)
    return starts.unsqueeze(1) + torch.arange(length, device=part.ts.device)
