"""A physics-informed loss: the field is to satisfy the data's known equation, also where there are no data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from node_runner.batches import TrajectoryBatch
from node_runner.errors import ConfigError
from node_runner.learning import StepOutput, Task
from node_runner.models.parts.positive import PositiveParameters
from node_runner.tasks.parts.placed import Placed
from node_runner.tasks.techniques.around import Around
from node_runner.views import DataSpec, View


SPREAD = 2.0
"""How far about the data's mean points are drawn, in standard deviations."""

POINTS = 256
"""Collocation points of a step."""

PACE = 10.0
"""Of the equation's parameters: one moves as fast as a network's weights together would move it."""


class Residual(Around):
    """A task on trajectories with a penalty on the residual of a known equation, the field less its right-hand side.

    The equation is the data's, with its parameters unknown: they are learned along, each as the exponential of a
    multiple of a weight, and shown as the scalars "equation/NAME". The data teach the field, the field at observed
    states teaches the parameters, and the equation teaches the field everywhere else: the penalty is the mean of
    |f(t, y) - form(t, y, parameters)|^2 over points y drawn in every step, uniformly within two standard deviations
    about the data's mean, at the times of the batch; in standard deviations of the data per unit of time. Its root is
    the scalar "residual".

    Args:
        task: what is trained otherwise.
        spec: of the data, with the equation.
        weight: of the penalty in the loss.
        model: gets the equation's parameters, so that they are optimised and saved with its own.
        part: the training data.

    Raises:
        ConfigError: data without a known equation.

    Source: Raissi, Perdikaris, Karniadakis, Physics-informed neural networks (2019), section 4 (parameters unknown).
    """

    def __init__(self, task: Task, spec: DataSpec, weight: float, model: nn.Module | None, part: Any) -> None:
        if spec.view is not View.trajectories or spec.equation is None:
            raise ConfigError(
                f"trainer.residual={weight:g} needs trajectories whose equation is known, and dataset={spec.dataset} "
                "gives none: use a data set such as lotka-volterra, or trainer.residual=0"
            )
        if not hasattr(model, "vector_field"):
            raise ConfigError("trainer.residual: this model has no field in the data's units; use trainer.residual=0")
        assert model is not None
        super().__init__(task)
        self.weight, self.form = weight, spec.equation.form
        start = {name: part.ys.new_tensor(value) for name, value in spec.equation.parameters.items()}
        self.weights = PositiveParameters(start, PACE)
        model.equation = self.weights
        self._mean, self._std = Placed(spec.mean), Placed(spec.std)

    def step(self, model: nn.Module, batch: TrajectoryBatch) -> StepOutput:
        """Loss and scalars of one batch."""
        out = self.task.step(model, batch)
        parameters = self.weights.positive()
        left = self._residual(model, batch, parameters)
        named = {f"equation/{name}": value.detach() for name, value in parameters.items()}
        scalars = {**out.scalars, "residual": left.detach().sqrt(), **named}
        total = out.loss + self.weight * (left + self._misfit(model, batch, parameters))
        return StepOutput(total, scalars, out.solves)

    def _residual(self, model: nn.Module, batch: TrajectoryBatch, parameters: dict[str, Tensor]) -> Tensor:
        """Mean square () of the residual at points around the data, for the field: the parameters have no gradient."""
        like = batch.ys[0, :1]
        mean, std = self._mean.like(like), self._std.like(like)
        # Drawn on the device: a copy in every step would wait for it.
        y = mean + SPREAD * std * (2 * torch.rand_like(like.expand(POINTS, -1)) - 1)
        which = torch.randint(len(batch.t0), (POINTS,), device=like.device)
        t = batch.t0[which] + batch.ts[-1] * torch.rand_like(batch.ts[-1].expand(POINTS))
        held = {name: value.detach() for name, value in parameters.items()}
        error = model.vector_field(t, y) - self.form(t, y, **held)  # type: ignore[operator]
        return (error / std).pow(2).mean()

    def _misfit(self, model: nn.Module, batch: TrajectoryBatch, parameters: dict[str, Tensor]) -> Tensor:
        """Mean square () of the residual at observed states, for the parameters: the field has no gradient."""
        when = torch.randint(len(batch.ts), (POINTS,), device=batch.ys.device)
        which = torch.randint(len(batch.t0), (POINTS,), device=batch.ys.device)
        y, t = batch.ys[when, which], batch.t0[which] + batch.ts[when]
        if batch.mask is not None:
            y = torch.where(batch.mask[when, which, None], y, self._mean.like(y))
        with torch.no_grad():
            found = model.vector_field(t, y)  # type: ignore[operator]
        error = (found - self.form(t, y, **parameters)) / self._std.like(y)
        return error.pow(2).mean()
