"""Noise on the inputs of training and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from node_runner.batches import LabelledBatch, TrajectoryBatch
from node_runner.errors import ConfigError
from node_runner.learning import StepOutput
from node_runner.settings import TrainerConfig
from node_runner.tasks import make_task
from node_runner.tasks.techniques.noise import InputNoise
from node_runner.views import View
from tests.models.builders import spec
from tests.runs import make_run, trainer_of


class Watching:
    """A task that keeps the batch of its last step."""

    name, view = "watching", View.trajectories

    def evaluate(self, model, part, batch_size):
        return {"loss": 0.0}

    def step(self, model, batch):
        self.batch = batch
        return StepOutput(torch.zeros(()), {"loss": torch.zeros(())}, [])


def test_first_states_get_noise_in_units_of_their_spread_and_targets_none():
    inner, std = Watching(), [1.0, 10.0]
    task = InputNoise(inner, spec(View.trajectories, (2,), std=std), 0.1)
    ys = torch.zeros(3, 50_000, 2, dtype=torch.float64)
    out = task.step(None, TrajectoryBatch(torch.arange(3.0), torch.zeros(50_000), ys, None))
    torch.testing.assert_close(inner.batch.ys[0].std(0), 0.1 * torch.tensor(std).double(), rtol=0.02, atol=0)
    assert torch.equal(inner.batch.ys[1:], ys[1:]) and bool((ys == 0).all())
    assert float(out.scalars["input_noise"]) == pytest.approx(0.1, rel=0.02)


def test_examples_get_noise_and_labels_stay():
    inner = Watching()
    batch = LabelledBatch(torch.zeros(9, 2, dtype=torch.float64), torch.arange(9))
    InputNoise(inner, spec(View.labelled, (2,), num_classes=9), 0.1).step(None, batch)
    assert torch.equal(inner.batch.y, batch.y) and bool((inner.batch.x != 0).all())


@pytest.mark.parametrize(("dataset", "model"), [("spiral", "node"), ("two_moons", "flow_matching")])
def test_it_composes_with_a_run_and_leaves_evaluation_alone(dataset: str, model: str, tmp_path: Path):
    parts = {"dataset": dataset, "model": model, "field": "mlp" if model == "node" else "concatsquash"}
    noisy = make_run(**parts, solver="midpoint", trainer__input_noise=0.2)
    plain = make_run(**parts, solver="midpoint")
    (trainer, experiment, lines), (other, same, _) = (
        trainer_of(noisy, tmp_path / "a"),
        trainer_of(plain, tmp_path / "b"),
    )
    assert trainer.evaluate(experiment.splits.test) == other.evaluate(same.splits.test)
    trainer.train()
    assert all(0.05 < value < 0.5 for value in lines.of("train/input_noise"))


def test_grey_levels_are_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"use trainer\.input_noise=0"):
        trainer_of(make_run(dataset="digits", model="cnf", field="concatsquash", trainer__input_noise=0.1), tmp_path)


@pytest.mark.parametrize("view", [View.series, View.paths, View.processes])
def test_series_are_refused(view: View):
    with pytest.raises(ConfigError, match=rf"learned as {view.value}: use trainer\.input_noise=0"):
        make_task(spec(view, (2,)), {}, TrainerConfig(input_noise=0.1))
