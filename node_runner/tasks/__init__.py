"""Tasks: what joins a data set's view with a model. (model, batch) -> loss, scalars and metrics."""

from __future__ import annotations

from typing import Any

from torch import nn

from node_runner.errors import ConfigError
from node_runner.learning import Regulariser, Task
from node_runner.models.parts.own_times import refuse_own_times
from node_runner.settings import FirstStates, TrainerConfig
from node_runner.tasks.classification import Classification
from node_runner.tasks.density import Density
from node_runner.tasks.paths import PathClassification
from node_runner.tasks.processes import ProcessLearning
from node_runner.tasks.series import SeriesRegression
from node_runner.tasks.techniques.conservation import Conservation
from node_runner.tasks.techniques.derivatives import MatchedDerivatives
from node_runner.tasks.techniques.first_states import LearnedFirstStates
from node_runner.tasks.techniques.lines import MatchedLines
from node_runner.tasks.techniques.noise import InputNoise
from node_runner.tasks.techniques.residual import Residual
from node_runner.tasks.techniques.shooting import Shooting
from node_runner.tasks.trajectory import TrajectoryRegression
from node_runner.views import DataSpec, Series, View


TASKS: dict[View, type] = {
    View.trajectories: TrajectoryRegression,
    View.labelled: Classification,
    View.points: Density,
    View.series: SeriesRegression,
    View.paths: PathClassification,
    View.processes: ProcessLearning,
}


def make_task(
    spec: DataSpec,
    regularisers: dict[str, Regulariser],
    config: TrainerConfig | None = None,
    model: nn.Module | None = None,
    part: Any = None,
) -> Task:
    """The task of a view, with what `config` adds to its training.

    Args:
        spec: of the data.
        regularisers: by name.
        config: multiple shooting, learned first states, physics, input noise, a warm start.
        model: gets the parameters of what is learned along.
        part: the training data, placed.

    Raises:
        ConfigError: what does not go together.
    """
    if model is not None and isinstance(part, Series):
        refuse_own_times(model, part)
    task: Task = TASKS[spec.view](spec, regularisers)
    if config is not None and config.shooting is not None:
        task = Shooting(task, spec, config, model, part)
    if config is not None and config.first_states is FirstStates.learned:
        task = LearnedFirstStates(task, config, model, part)
    if config is not None and config.conservation:
        task = Conservation(task, spec, config.conservation)
    if config is not None and config.residual:
        task = Residual(task, spec, config.residual, model, part)
    if config is not None and config.input_noise:
        task = InputNoise(task, spec, config.input_noise)
    if config is not None and config.warm_start:
        if config.steps is not None and config.warm_start >= config.steps:
            raise ConfigError(
                f"trainer.warm_start={config.warm_start} leaves none of trainer.steps={config.steps} for training with "
                "a solve: use more steps, or trainer.warm_start=0"
            )
        matched = MatchedLines if spec.view is View.points else MatchedDerivatives
        task = matched(task, spec, config.warm_start, model)
    return task


__all__ = [
    "TASKS",
    "Classification",
    "Density",
    "PathClassification",
    "ProcessLearning",
    "SeriesRegression",
    "TrajectoryRegression",
    "make_task",
]
