"""Stand-ins for models and tasks, so that the loop is tested alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from node_runner.learning import StepOutput
from node_runner.settings import ToleranceConfig, TrainerConfig
from node_runner.solving import Tolerances
from node_runner.training.loop import Trainer
from node_runner.types import SolveStats
from node_runner.views import Splits, View
from tests.runs import Lines


class Weight(nn.Module):
    """One vector that is trained, and a buffer that is not."""

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(values or [1.0], dtype=torch.float64))
        self.register_buffer("constant", torch.ones((), dtype=torch.float64))


class Scripted:
    """A task whose loss is a function of the weights, and whose validations say what a test tells them to."""

    name = "scripted"
    view = View.points

    def __init__(
        self,
        loss: Callable[[Tensor, int], Tensor] = lambda value, step: value.square().sum(),
        validations: Iterable[float] = (),
        steps_per_epoch: int = 4,
    ) -> None:
        self.loss = loss
        self.validations = iter(validations)
        self.steps_per_epoch = steps_per_epoch
        self.parts: list[Any] = []
        self.seen: list[list[float]] = []
        self.modes: list[bool] = []
        self.noise: list[float] = []

    def batches(
        self, part: Any, config: TrainerConfig, seed: int, progress: Callable[[int], float]
    ) -> tuple[int, Callable[[int], int]]:
        return self.steps_per_epoch, lambda step: step

    def step(self, model: Any, batch: int) -> StepOutput:
        self.modes.append(model.training)
        loss = self.loss(model.value, batch)
        return StepOutput(loss, {"loss": loss.detach()}, [SolveStats(nfe_forward=10 + batch, nfe_backward=batch)])

    def evaluate(self, model: Any, part: Any, batch_size: int) -> dict[str, float]:
        self.parts.append(part)
        self.seen.append(model.value.tolist())
        self.modes.append(model.training)
        self.noise.append(float(torch.rand(())))
        return {"loss": next(self.validations, 1.0)}


def make_trainer(
    folder: Path,
    task: Scripted,
    model: nn.Module | None = None,
    *,
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] = lambda p: torch.optim.SGD(p, lr=0.1),
    factor: Callable[[int], Callable[[int], float]] = lambda total: lambda step: 1.0,
    tolerance: ToleranceConfig | None = None,
    **config: Any,
) -> tuple[Trainer, Lines]:
    """A trainer of stand-ins, and what it reports."""
    model = Weight() if model is None else model
    lines = Lines()
    trainer = Trainer(
        model=model,
        task=task,
        splits=Splits("train", "val", "test"),
        optimizer=optimizer(model.parameters()),
        make_factor=factor,
        tolerances=Tolerances(tolerance or ToleranceConfig()),
        config=TrainerConfig(**{"steps": 8, "log_every": 1, "eval_every": 2, **config}),
        seed=0,
        device=torch.device("cpu"),
        checkpoints=folder,
        reporters=[lines],
    )
    return trainer, lines
