"""The parts of a run for notebooks and scripts, by name and without Hydra.

    import node_runner as nr

    data = nr.dataset("spiral", noise=0.01)
    solve = nr.solver("dopri5", rtol=1e-4, atol=1e-5, adjoint="on")
    model = nr.model("node", data, solve, field="mlp", field_settings={"width": 64})
    print(nr.fit(model, data, steps=500, report=print))

    run = nr.load("outputs/RUN")
    predicted = run.model(run.splits.test.ys[:, 0], run.splits.test.ts).value

Settings are those that `node-run list GROUP OPTION` shows, and are checked in the same way. Every
part can also be built by calling its class; these functions only save imports.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, cast

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from node_runner.adjoints import ADJOINTS
from node_runner.assemble import Experiment, FieldFactory, choose_view, place
from node_runner.datasets import DATASETS
from node_runner.engines import ENGINES
from node_runner.errors import ConfigError, did_you_mean
from node_runner.fields import FIELDS
from node_runner.models import MODELS
from node_runner.models.parts.positive import PositiveParameters
from node_runner.registry import ComponentConfig, Registry
from node_runner.reporting.console import Validations
from node_runner.reporting.run_folder import RunFolder
from node_runner.runs.saved import CHECKPOINTS, restore
from node_runner.runtime import set_up
from node_runner.settings import DeviceConfig, ToleranceConfig, TrainerConfig, check
from node_runner.solvers import SOLVERS
from node_runner.solving import Solve, Tolerances
from node_runner.tasks import make_task
from node_runner.training import OPTIMIZERS, SCHEDULES
from node_runner.training.loop import Trainer
from node_runner.training.measuring import measured
from node_runner.types import Integrate
from node_runner.views import Dataset, View


def settings(registry: Registry[Any], name: str, **values: Any) -> ComponentConfig:
    """The checked settings of one component. Choices may be given by name: activation="tanh".

    Raises:
        ConfigError: an unknown component or setting, a wrong type, or a value out of range.
    """
    schema = registry.schema(name)
    known = {parameter.name for parameter in registry.signature(name).parameters}
    config: ComponentConfig = _checked(registry.group, schema, values, known, f" of {name}")
    return config


def _checked(group: str, schema: type, values: dict[str, Any], known: Collection[str], owner: str = "") -> Any:
    """An object of `schema`, a dataclass, with its types and ranges checked."""
    for key in values:
        if key not in known:
            raise ConfigError(f"{group}.{key}: no such setting{owner}; {did_you_mean(key, known)}")
    try:
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), values))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{group}.{error.full_key}: {str(error).splitlines()[0]}") from error
    check(config, group)
    return config


def _plain(group: str, schema: type, values: dict[str, Any]) -> Any:
    """As `settings`, of a group that has no components."""
    return _checked(group, schema, values, [field.name for field in dataclasses.fields(schema)])


def dataset(name: str, **values: Any) -> Dataset:
    """Build a data set by name, such as `nr.dataset("oscillator", zeta=0.2)`."""
    built: Dataset = DATASETS.build(settings(DATASETS, name, **values))
    built.check()
    return built


def solver(
    name: str = "dopri5",
    *,
    rtol: float = 1e-4,
    atol: float = 1e-5,
    adjoint: str = "off",
    engine: str = "auto",
    **values: Any,
) -> Integrate:
    """A differentiable solve (f, y0 (B, D...), ts (T,)) -> Solution.

    The engine is the fastest that can serve and compiles in a second or two: native, else torchdiffeq.
    """
    tolerance = _plain("tolerance", ToleranceConfig, {"rtol": rtol, "atol": atol})
    return Solve(
        ENGINES.build(settings(ENGINES, engine)),
        SOLVERS.build(settings(SOLVERS, name, **values), name),
        ADJOINTS.build(settings(ADJOINTS, adjoint)),
        Tolerances(tolerance),
    )


def model(
    name: str,
    data: Dataset,
    solve: Integrate,
    *,
    field: str | Callable[..., nn.Module] | None = None,
    field_settings: dict[str, Any] | None = None,
    **values: Any,
) -> nn.Module:
    """Build a model for a data set, such as `nr.model("augmented", data, solve, augment=2)`.

    Args:
        name: of the model.
        data: decides shapes and scales.
        solve: from `solver`.
        field: name of a vector field, or a function that makes one for a state shape (None:
            concatsquash for flows, else mlp); for second_order and graph it is told the number of outputs too.
        field_settings: settings of a named field.
        values: settings of the model.

    Raises:
        ConfigError: as `settings`, or the parts do not fit each other.
    """
    if isinstance(data, str):
        raise ConfigError(f"data: expected a data set, got the name '{data}'; use nr.dataset('{data}')")
    if isinstance(solve, str):
        raise ConfigError(f"solve: expected a solve, got the name '{solve}'; use nr.solver('{solve}')")
    view = choose_view(type(data).__name__, data, name)
    if field is None:
        field = "concatsquash" if view is View.points else "mlp"
    spec = data.spec(view)
    make_field = field
    if isinstance(field, str):
        make_field = FieldFactory(settings(FIELDS, field, **(field_settings or {})), autonomous=spec.autonomous)
    built: nn.Module = MODELS.build(settings(MODELS, name, **values), spec, make_field, solve, {})
    return built.to(torch.get_default_dtype())


def fit(
    model: nn.Module,
    data: Dataset,
    *,
    seed: int = 0,
    lr: float = 5e-3,
    device: DeviceConfig | None = None,
    report: Callable[[str], object] | None = None,
    **values: Any,
) -> dict[str, float]:
    """Train a model in place and keep the weights that were best on the validation part.

    Args:
        model: from `model`, or any module with a `view` that answers as those do.
        data: what it was made for.
        seed: of the batches (first weights are drawn by `model`, after torch.manual_seed).
        lr: learning rate of Adam, which falls along half a cosine.
        device: where to train (None: a GPU if there is one, float32, one thread).
        report: told a line of metrics at each validation, such as `print` (None: nothing is said).
        values: of `TrainerConfig`, such as steps=500.

    Returns:
        Metrics of the best validation, and of every test part (loss NaN where it could not be solved); with `residual`,
        the equation's parameters.

    Raises:
        ConfigError: a value out of its range, or that a module alone cannot serve.
    """
    config = _plain("trainer", TrainerConfig, values)
    if not hasattr(model, "view"):
        raise ConfigError(f"model: {type(model).__name__} has no `view` that it learns from; use nr.model(...)")
    if config.field_weight_decay:
        raise ConfigError("field_weight_decay: a module does not say which of its weights are the field's; "
                          "use node-run, or an optimiser of your own")  # fmt: skip
    where, dtype = set_up(device or DeviceConfig(), seed)
    spec = data.spec(model.view)  # type: ignore[arg-type]
    splits = place(data.splits(spec.view), where, dtype)
    model.to(where, dtype)
    own = dict(model.named_children())
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=model,
            task=make_task(spec, {}, config, model, splits.train),
            splits=splits,
            optimizer=OPTIMIZERS.build(settings(OPTIMIZERS, "adam", lr=lr), model.parameters()),
            make_factor=lambda total: SCHEDULES.build(settings(SCHEDULES, "cosine"), total),
            tolerances=Tolerances(ToleranceConfig()),
            config=config,
            seed=seed,
            device=where,
            checkpoints=Path(folder),
            reporters=[] if report is None else [Validations(report)],
        )
        trained = trainer.train()
    tests = measured(trainer, splits.tests)
    found: dict[str, float] = {}
    if config.residual:
        parameters = cast(PositiveParameters, model.equation).positive()
        found = {f"equation/{name}": value.item() for name, value in parameters.items()}
    for name in dict(model.named_children()).keys() - own.keys():
        delattr(model, name)  # what was learned along with the model, and is not its own
    return {**trained.best, **tests, **found}


def load(run: str | Path, *overrides: str, checkpoint: str = "best") -> Experiment:
    """A run of `node-run`, built again with its weights, such as `nr.load("outputs/RUN", "device=cpu")`.

    Args:
        run: its folder.
        overrides: settings to change, as for `node-run evaluate`.
        checkpoint: "best" (lowest val/loss) or "last".

    Returns:
        Its parts, on the run's device: `config`, `dataset`, `spec` and `splits` of the view that was learned from,
        `solve`, and `model` in eval mode, which solves at the training's tolerance but `with tolerances.evaluation():`.
        `model(y0 (B, D), ts (T,)).value` are the states (T, B, D) of a model of trajectories.

    Raises:
        ConfigError: the folder holds no run or no such checkpoint, or overrides that do not fit the weights.
    """
    if checkpoint not in CHECKPOINTS:
        raise ConfigError(f"checkpoint={checkpoint}: expected {' or '.join(CHECKPOINTS)}")
    folder = RunFolder(Path(run))
    if not folder.config.is_file():
        raise ConfigError(f"{run}: not a run; it has no config.yaml, which node-run writes into the folder of each")
    return restore(folder, overrides, checkpoint).experiment
