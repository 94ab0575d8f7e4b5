"""Short ways to the configuration of a run, and to a run that trains."""

from __future__ import annotations

import dataclasses
import functools
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from node_runner.adjoints import ADJOINTS
from node_runner.assemble import Experiment, assemble
from node_runner.config import RunConfig
from node_runner.datasets import DATASETS
from node_runner.engines import ENGINES
from node_runner.fields import FIELDS
from node_runner.models import MODELS
from node_runner.registry import Registry
from node_runner.regularisers import REGULARISERS
from node_runner.reporting.run_folder import RunFolder
from node_runner.runs.run import make_trainer
from node_runner.settings import DeviceConfig, Place, Precision, ToleranceConfig, TrainerConfig
from node_runner.solvers import SOLVERS
from node_runner.training import OPTIMIZERS, SCHEDULES
from node_runner.training.loop import Trainer


def make_run(
    *,
    dataset: str = "spiral",
    model: str = "node",
    field: str = "mlp",
    solver: str = "dopri5",
    adjoint: str = "off",
    engine: str = "torchdiffeq",
    optimizer: str = "adam",
    schedule: str = "constant",
    regularisers: Sequence[str] = (),
    **settings: Any,
) -> RunConfig:
    """A small run on the CPU in float64, without Hydra. Settings are given as `trainer__steps=2`."""

    def chosen(registry: Registry[Any], name: str) -> Any:
        return registry.schema(name)()

    run = RunConfig(
        dataset=chosen(DATASETS, dataset),
        model=chosen(MODELS, model),
        field=chosen(FIELDS, field),
        solver=chosen(SOLVERS, solver),
        tolerance=ToleranceConfig(rtol=1e-3, atol=1e-4),
        adjoint=chosen(ADJOINTS, adjoint),
        engine=chosen(ENGINES, engine),
        optimizer=chosen(OPTIMIZERS, optimizer),
        schedule=chosen(SCHEDULES, schedule),
        trainer=TrainerConfig(steps=2, batch_size=8, window=None, log_every=1, eval_every=2),
        regulariser={name: chosen(REGULARISERS, name) for name in regularisers},
        device=DeviceConfig(place=Place.cpu, precision=Precision.float64),
    )
    for part, value in {**smaller(run.dataset), "field__width": 8, **settings}.items():
        *groups, name = part.split("__")
        target = run
        for group in groups:
            target = getattr(target, group)
        if part in settings or hasattr(target, name):
            assert hasattr(target, name), f"no setting {part}"
            setattr(target, name, value)
    return run


# Evaluations as small as a training batch: one library of engine=native serves both.
SMALL = {"train": 12, "val": 6, "test": 6, "long": 6, "times": 20, "horizon": 1.0, "observed": 8, "settle": 0.5}


def smaller(dataset: Any) -> dict[str, Any]:
    """Settings that make any data set small."""
    known = {item.name for item in dataclasses.fields(dataset)}
    if dataset.name == "file":
        return {"dataset__path": str(example_file()), "dataset__val_share": 0.25, "dataset__test_share": 0.25}
    return {f"dataset__{name}": size for name, size in SMALL.items() if name in known}


@functools.cache
def example_file() -> Path:
    """24 series of 20 states in a CSV file, for the data set that has none of its own."""
    path = Path(tempfile.mkdtemp()) / "series.csv"
    lines = ["id,t,x,y"]
    for i in range(24):
        for k in range(20):
            t = k / 19
            lines.append(f"series {i},{t!r},{(1 + i / 24) * math.cos(t + i)!r},{(1 + i / 24) * math.sin(t + i)!r}")
    path.write_text("\n".join(lines) + "\n")
    return path


def smaller_overrides(dataset: Any) -> list[str]:
    """The same, as on the command line."""
    return [f"{key.replace('__', '.')}={size}" for key, size in smaller(dataset).items()]


class Lines:
    """A reporter that keeps what it hears."""

    def __init__(self) -> None:
        self.began: list[tuple[int, int]] = []
        self.lines: list[tuple[int, dict[str, float]]] = []
        self.steps: list[int] = []

    def begin(self, step: int, total: int) -> None:
        self.began.append((step, total))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self.lines.append((step, dict(values)))

    def step(self, step: int) -> None:
        self.steps.append(step)

    def of(self, name: str) -> list[float]:
        """Every value of one scalar, in order."""
        return [values[name] for _, values in self.lines if name in values]

    def repeatable(self) -> list[tuple[int, dict[str, float]]]:
        """All lines without what the machine decides: times and resident memory."""
        machine = ("time/", "memory/peak")
        return [(step, {k: v for k, v in values.items() if not k.startswith(machine)}) for step, values in self.lines]


def trainer_of(run: RunConfig, folder: Path) -> tuple[Trainer, Experiment, Lines]:
    """A run, built and ready to be trained in `folder`."""
    experiment = assemble(run)
    trainer = make_trainer(experiment, RunFolder(folder))
    lines = Lines()
    trainer.reporters = [lines]
    return trainer, experiment, lines
