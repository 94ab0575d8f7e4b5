"""What models and tasks hand to one another. Data and protocols only; shapes as in `types`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from node_runner.types import Method, SolveStats, Step
from node_runner.views import View


Integrand = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(t (), y (B, D...) that requires grad, dy = f(t, y)) -> (B,): what is integrated beside the state.

One with a true attribute `differentiates_time` is given a t that requires grad too.
"""


@runtime_checkable
class IntegralRegulariser(Protocol):
    """A quantity integrated along a solve and added to the loss, `weight` times."""

    weight: float

    def begin(self, y0: Tensor) -> Integrand:
        """The integrand of one solve from y0 (B, D...); any noise in it is drawn here and stays fixed."""
        ...


@runtime_checkable
class StepRegulariser(Protocol):
    """A quantity summed over the steps that the solver took, and added to the loss, `weight` times."""

    weight: float

    def check(self, method: Method) -> None:
        """Refuse a method whose steps do not tell the quantity.

        Raises:
            ConfigError: with the methods that do.
        """
        ...

    def of_step(self, step: Step) -> Tensor:
        """What an accepted step adds, (B,)."""
        ...


Regulariser = IntegralRegulariser | StepRegulariser


class ModelOutput(NamedTuple):
    """What a model makes of a batch.

    value: predicted states (T, B, D), logits (B, C) or log-densities (B,).
    solves: what each ODE solve cost.
    penalties: the integral or sum of each regulariser along the solve, by name, mean over the batch, ().
    objective: () what the model is trained on in place of the task's loss, such as a bound of the likelihood.
    scalars: further values () by name, such as the terms of a bound or a parameter that has a meaning.
    events: (B, K) times of the events that a model with jumps predicts, in order, then -1.
    """

    value: Tensor
    solves: list[SolveStats]
    penalties: Mapping[str, Tensor]
    objective: Tensor | None = None
    scalars: Mapping[str, Tensor] = {}
    events: Tensor | None = None

    @property
    def nfe(self) -> int:
        """Evaluations of the field in all forward solves."""
        return sum(stats.nfe_forward for stats in self.solves)


class ProcessModel(Protocol):
    """What a model of a process can do beside being called: draw paths, in the data's units.

    One whose equation is of the values themselves also has `coefficients(y)`: drift and diffusion at states y (N, D) at
    time 0, (N, D) each, or None where its settings are such that it is not.

    Attributes:
        observation_std: (D,) deviation of an observation from the state that is drawn.
    """

    observation_std: Tensor

    def generate(self, ts: Tensor, count: int, *, generator: torch.Generator | None = None) -> ModelOutput:
        """Draw states (T, count, D) at ts (T,) without any observation, with what their solve cost."""
        ...

    def imagine(
        self, ts: Tensor, values: Tensor, seen: Tensor, count: int, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw states (count, T, B, D), given the values (T, B, D) at the places that are seen (T, B, D)."""
        ...


class StepOutput(NamedTuple):
    """One batch through a task.

    loss: () to be minimised. scalars: further () values, on the device. solves: what each solve cost.
    """

    loss: Tensor
    scalars: dict[str, Tensor]
    solves: list[SolveStats]


class Task(Protocol):
    """Joins a view with a model: makes batches, computes the loss and the metrics."""

    name: str
    view: View

    def batches(
        self, part: Any, config: Any, seed: int, progress: Callable[[int], float]
    ) -> tuple[int, Callable[[int], Any]]:
        """Steps in an epoch, and the training batch of each step 0, 1, ...: a pure function of the seed."""
        ...

    def step(self, model: nn.Module, batch: Any) -> StepOutput:
        """Loss and scalars of one training batch. Pure: no logging, no copy to the host."""
        ...

    def evaluate(self, model: nn.Module, part: Any, batch_size: int) -> dict[str, float]:
        """Metrics of a whole part, such as {"loss": ..., "mse": ...}, without gradients."""
        ...
