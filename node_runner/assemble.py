"""Builds a run: the one place that knows every registry."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from node_runner.adjoints import ADJOINTS
from node_runner.config import RunConfig
from node_runner.datasets import DATASETS
from node_runner.datasets.parts.bounds import check_numbers, making
from node_runner.engines import ENGINES
from node_runner.errors import ConfigError, either
from node_runner.fields import FIELDS
from node_runner.learning import Task
from node_runner.models import MODELS
from node_runner.models.parts.declarations import unused_by, views_of
from node_runner.regularisers import REGULARISERS
from node_runner.runtime import set_up
from node_runner.solvers import SOLVERS
from node_runner.solving import Solve, Tolerances
from node_runner.tasks import make_task
from node_runner.types import Method
from node_runner.views import Dataset, DataSpec, Splits, View


class FieldFactory:
    """Makes the configured field for the state shape, and the number of outputs, that a model asks for.

    Args:
        config: of the field.
        autonomous: whether the law of the data leaves time out; where it does not, a field that can be told the time
            is, unless its configuration says otherwise.

    Attributes:
        made: every field so far.
    """

    def __init__(self, config: Any, *, autonomous: bool = True) -> None:
        if getattr(config, "time_dependent", True) is None:
            config = replace(config, time_dependent=not autonomous)
        self._config = config
        self.made: list[nn.Module] = []
        self.state_ndim: int = getattr(FIELDS.get(config.name), "state_ndim", 1)

    def __call__(self, shape: tuple[int, ...], outputs: int | None = None, /) -> nn.Module:
        """A field for states of `shape`.

        Raises:
            ConfigError: it is to have `outputs` of its own, and cannot.
        """
        if outputs is None:
            return self._keep(FIELDS.build(self._config, shape))
        supplied = inspect.signature(FIELDS.get(self._config.name)).parameters.values()
        if sum(parameter.kind is parameter.POSITIONAL_ONLY for parameter in supplied) < 2:
            raise ConfigError(
                f"field={self._config.name} gives as many numbers as its state has, and this model needs a network "
                f"from {shape[0]} to {outputs}: use field=mlp"
            )
        return self._keep(FIELDS.build(self._config, shape, outputs))

    def _keep(self, field: nn.Module) -> nn.Module:
        self.made.append(field)
        return field


@dataclass(frozen=True)
class Experiment:
    """Everything of a run, built: ready to be trained, evaluated or sampled from."""

    config: RunConfig
    device: torch.device
    dtype: torch.dtype
    dataset: Dataset
    spec: DataSpec
    splits: Splits[Any]
    model: nn.Module
    task: Task
    method: Method
    solve: Solve
    tolerances: Tolerances
    fields: list[nn.Module]

    @property
    def unused(self) -> tuple[str, ...]:
        """Groups of the configuration that play no part in the model."""
        return unused_by(MODELS.get(self.config.model.name))


def choose_view(dataset_name: str, dataset: Dataset, model_name: str) -> View:
    """The first view of the data set that the model learns from.

    Raises:
        ConfigError: there is none, with the models that would do.
    """
    wanted = views_of(MODELS.get(model_name))
    for view in dataset.views:
        if view in wanted:
            return view
    offered = ", ".join(view.value for view in dataset.views)
    fitting = [name for name in MODELS.names() if set(views_of(MODELS.get(name))) & set(dataset.views)]
    raise ConfigError(
        f"model={model_name} learns from {either(view.value for view in wanted)}, and dataset={dataset_name} "
        f"offers {offered}: use model={either(fitting)}"
    )


def assemble(config: RunConfig) -> Experiment:
    """Build every part of a run, after checking that the parts fit together.

    Seeds all generators, so that a configuration always gives the same initial weights.

    Raises:
        ConfigError: parts that do not fit, in one sentence with what to use instead.
        DataError: data files that are missing or damaged.
    """
    device, dtype = set_up(config.device, config.seed)
    name = config.dataset.name
    with making(name):
        dataset = DATASETS.build(config.dataset)
        dataset.check()
    view = choose_view(name, dataset, config.model.name)
    method = SOLVERS.build(config.solver, config.solver.name)
    tolerances = Tolerances(config.tolerance)
    solve = Solve(ENGINES.build(config.engine), method, ADJOINTS.build(config.adjoint), tolerances)
    with making(name):
        spec, splits = dataset.spec(view), dataset.splits(view)
    check_numbers(name, spec, splits, dtype)
    regularisers = {name: REGULARISERS.build(item) for name, item in config.regulariser.items()}
    make_field = FieldFactory(config.field, autonomous=spec.autonomous)
    model = MODELS.build(config.model, spec, make_field, solve, regularisers).to(device, dtype)
    placed = place(splits, device, dtype)
    task = make_task(spec, regularisers, config.trainer, model, placed.train)
    return Experiment(
        config, device, dtype, dataset, spec, placed, model, task, method, solve, tolerances, make_field.made
    )


def place(splits: Splits[Any], device: torch.device, dtype: torch.dtype) -> Splits[Any]:
    """Move all parts of a view to the device, where batches are then selected by index."""
    return splits.map(lambda part: part.to(device, dtype))


def count_parameters(model: nn.Module) -> int:
    """How many numbers of a model are trained."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
