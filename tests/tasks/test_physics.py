"""Physics-informed losses: what they measure, what they learn, and the data that have none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from node_runner.batches import TrajectoryBatch
from node_runner.errors import ConfigError
from node_runner.learning import StepOutput
from node_runner.tasks import TrajectoryRegression
from node_runner.tasks.techniques.conservation import Conservation
from node_runner.tasks.techniques.residual import Residual
from node_runner.views import Equation, Trajectories, View
from tests.models.builders import LinearField, make_model, spec
from tests.runs import make_run, trainer_of


TS = torch.linspace(0, 1, 11, dtype=torch.float64)
ROTATION = [[0.0, 1.0], [-1.0, 0.0]]
CIRCLE = spec(
    View.trajectories, (2,), mean=[0.0, 0.0], std=[1.0, 1.0], energy=lambda y: y.square().sum(-1),
    equation=Equation(lambda t, y, rate: rate * torch.stack((y[..., 1], -y[..., 0]), -1), {"rate": 2.0}),
)  # fmt: skip
Y0 = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
BATCH = TrajectoryBatch(TS, torch.zeros(2, dtype=torch.float64), Y0.expand(11, 2, 2), None)


class Unsolved:
    """A task that has no loss of its own."""

    name, view = "unsolved", View.trajectories

    def evaluate(self, model, part, batch_size):
        return {"loss": 0.0}

    def step(self, model, batch):
        return StepOutput(torch.zeros(()), {}, [])


def test_a_rotation_conserves_its_energy_and_a_decay_loses_it():
    task = Conservation(TrajectoryRegression(CIRCLE, {}), CIRCLE, 3.0)
    model = make_model("node", CIRCLE, lambda shape: LinearField(ROTATION))
    assert float(task.step(model, BATCH).scalars["conservation"]) < 1e-7
    model = make_model("node", CIRCLE, lambda shape: LinearField([[-1.0, 0.0], [0.0, -1.0]]))
    out = task.step(model, BATCH)
    # E(t) = E(0) exp(-2 t), E(0) = 1 and 4: the mean squared energy drops out.
    expected = (1 - (-2 * TS[1:]).exp()).square().mean()
    assert float(out.scalars["conservation"]) == pytest.approx(float(expected.sqrt()), rel=1e-6)
    assert float(out.loss.detach() - out.scalars["loss"]) == pytest.approx(3 * float(expected), rel=1e-6)
    assert not model._forward_hooks


def test_where_all_rests_at_no_energy_the_drift_is_in_units_of_its_own():
    task = Conservation(TrajectoryRegression(CIRCLE, {}), CIRCLE, 3.0)
    model = make_model("node", CIRCLE, lambda shape: LinearField(ROTATION))
    resting = BATCH._replace(ys=torch.zeros_like(BATCH.ys))
    out = task.step(model, resting)
    assert float(out.scalars["conservation"]) == 0.0
    assert out.loss.item() == 0.0


def test_a_field_that_satisfies_the_equation_leaves_nothing_over():
    part = Trajectories(TS, BATCH.ys.transpose(0, 1))
    model = make_model("node", CIRCLE, lambda shape: LinearField([[0.0, 2.0], [-2.0, 0.0]]))
    task = Residual(TrajectoryRegression(CIRCLE, {}), CIRCLE, 1.0, model, part)
    scalars = task.step(model, BATCH).scalars
    assert float(scalars["residual"]) < 1e-12
    assert float(scalars["equation/rate"]) == pytest.approx(2.0)


def test_the_equation_s_parameters_are_learned_along():
    part = Trajectories(TS, BATCH.ys.transpose(0, 1))
    model = make_model("node", CIRCLE, lambda shape: LinearField(ROTATION))
    task = Residual(Unsolved(), CIRCLE, 1.0, model, part)
    assert "equation.rate" in dict(model.named_parameters())
    optimizer = torch.optim.Adam(model.equation.parameters(), lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        out = task.step(model, BATCH)
        out.loss.backward()
        optimizer.step()
    assert float(out.scalars["equation/rate"]) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("setting", ["conservation", "residual"])
def test_it_shows_its_scalar_and_composes(setting: str, tmp_path: Path):
    run = make_run(dataset="pendulum", solver="midpoint", regularisers=["kinetic"], trainer__warm_start=1,
                   trainer__window=5, trainer__steps=3, **{f"trainer__{setting}": 0.1})  # fmt: skip
    trainer, _, lines = trainer_of(run, tmp_path)
    trainer.train()
    assert all(value > 0 for value in lines.of(f"train/{setting}"))
    assert len(lines.of(f"train/{setting}")) == 2  # the first step matches derivatives


@pytest.mark.parametrize("setting", ["conservation", "residual"])
def test_data_without_the_physics_are_refused(setting: str, tmp_path: Path):
    with pytest.raises(ConfigError, match=f"use .*trainer.{setting}=0"):
        trainer_of(make_run(dataset="two_moons", model="cnf", **{f"trainer__{setting}": 0.1}), tmp_path)
