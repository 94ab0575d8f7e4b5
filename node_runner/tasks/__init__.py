"""Tasks: what joins a data set's view with a model. (model, batch) -> loss, scalars and metrics."""

from __future__ import annotations

from node_runner.errors import ConfigError
from node_runner.learning import Regulariser, Task
from node_runner.settings import FirstStates, TrainerConfig
from node_runner.tasks.classification import Classification
from node_runner.tasks.density import Density
from node_runner.tasks.first_states import LearnedFirstStates, give_first_states
from node_runner.tasks.noise import InputNoise
from node_runner.tasks.paths import PathClassification
from node_runner.tasks.series import SeriesRegression
from node_runner.tasks.trajectory import TrajectoryRegression
from node_runner.tasks.warm_start import WarmStart
from node_runner.views import DataSpec, View


TASKS: dict[View, type] = {
    View.trajectories: TrajectoryRegression,
    View.labelled: Classification,
    View.points: Density,
    View.series: SeriesRegression,
    View.paths: PathClassification,
}


def make_task(spec: DataSpec, regularisers: dict[str, Regulariser], config: TrainerConfig | None = None) -> Task:
    """The task of a view, with what `config` adds to its training: learned first states, input noise, a warm start.

    Raises:
        ConfigError: what does not go together.
    """
    task: Task = TASKS[spec.view](spec, regularisers)
    if config is not None and config.first_states is FirstStates.learned:
        if config.input_noise:
            raise ConfigError(
                f"trainer.input_noise={config.input_noise:g} is added to given first states, and "
                "trainer.first_states=learned takes noise out of them: use one of the two"
            )
        assert isinstance(task, TrajectoryRegression), "give_first_states has seen to it"
        task = LearnedFirstStates(task)
    if config is not None and config.input_noise:
        task = InputNoise(task, spec, config.input_noise)
    if config is not None and config.warm_start:
        task = WarmStart(task, spec, config.warm_start)
    return task


__all__ = [
    "TASKS",
    "Classification",
    "Density",
    "PathClassification",
    "SeriesRegression",
    "TrajectoryRegression",
    "give_first_states",
    "make_task",
]
