"""Small runs from configuration to result: they learn, and leave behind what they promise."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from node_runner.assemble import assemble
from node_runner.config import RunConfig, compose_run, config_hash, resolved
from node_runner.errors import ConfigError, Diverged, RunError, SolveFailed
from node_runner.reporting.figures import draw
from node_runner.reporting.run_folder import RunFolder
from node_runner.runs.config_file import load_run
from node_runner.runs.run import make_trainer, run
from node_runner.settings import SpiralForm
from tests.runs import make_run, trainer_of


def go(config: RunConfig, folder: Path, **more: Any) -> dict[str, Any]:
    return run(config, folder, live=False, **more)


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes longest and is tested elsewhere."""
    monkeypatch.setattr("node_runner.runs.run.draw", lambda *arguments: iter(()))


def test_a_linear_spiral_is_learned_to_a_mean_squared_error_below_one_thousandth(tmp_path: Path, no_figures: None):
    config = compose_run([
        "dataset.form=linear", "solver=midpoint", "trainer.steps=200", "trainer.window=4", "trainer.average=null",
        "trainer.eval_every=100", "optimizer.lr=2e-2", "field.width=32", "device=cpu", "logger=[]",
    ])  # fmt: skip
    result = go(config, tmp_path / "run")
    assert result["status"] == "completed"
    assert result["metrics"]["test/mse"] < 1e-3


def test_a_flow_fits_two_moons_better_than_a_normal_distribution_does(tmp_path: Path):
    config = make_run(
        dataset="two_moons", model="cnf", field="concatsquash", solver="midpoint", schedule="cosine",
        **{"dataset__train": 2000, "dataset__val": 200, "dataset__test": 500, "field__width": 32, "field__depth": 2,
           "solver__step_size": 0.25, "trainer__steps": 80, "trainer__batch_size": 200, "trainer__eval_every": 50,
           "optimizer__lr": 3e-2},
    )  # fmt: skip
    trainer, experiment, _ = trainer_of(config, tmp_path)
    x = experiment.splits.train.x
    normal = torch.distributions.MultivariateNormal(x.mean(0), x.T.cov())
    baseline = -float(normal.log_prob(experiment.splits.test.x).mean())
    untrained = trainer.evaluate(experiment.splits.test)["nll"]
    trainer.train()
    nll = trainer.evaluate(experiment.splits.test)["nll"]
    assert nll < baseline - 0.15
    assert nll < untrained - 0.3


def test_nine_in_ten_digits_are_recognised(tmp_path: Path):
    config = make_run(
        dataset="digits", solver="rk4", schedule="cosine",
        **{"dataset__train": None, "dataset__val": 250, "dataset__test": 300, "field__width": 32, "model__state": 32,
           "solver__step_size": 0.5, "trainer__steps": 120, "trainer__batch_size": 128, "trainer__eval_every": 60,
           "optimizer__lr": 5e-3},
    )  # fmt: skip
    trainer, experiment, _ = trainer_of(config, tmp_path)
    trainer.train()
    assert trainer.evaluate(experiment.splits.test)["accuracy"] > 0.9


# --- what a run leaves behind ----------------------------------------------------------------------


def small(**settings: Any) -> RunConfig:
    return make_run(solver="midpoint", dataset__horizon=1.0, **settings)


def test_a_run_leaves_its_configuration_metrics_result_checkpoints_and_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("node_runner.runs.run.draw", lambda *arguments: itertools.islice(draw(*arguments), 1))
    config = make_run(solver="midpoint", trainer__steps=4, dataset__form=SpiralForm.linear)
    returned = go(config, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    assert load_run(folder.config) == config
    result = json.loads(folder.result.read_text())
    assert result == json.loads(json.dumps(returned))
    assert (result["status"], result["config_hash"], result["totals"]["steps"]) == ("completed", config_hash(config), 4)
    assert {"train/loss", "val/loss", "test/mse", "test_long/mse", "nfe/forward", "memory/peak_mb"} <= set(
        result["metrics"]
    )
    lines = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    assert [line["step"] for line in lines if "train/loss" in line] == [1, 2, 3, 4]
    assert json.loads(folder.environment.read_text())["seed"] == 0
    assert {file.name for file in folder.checkpoints.iterdir()} == {"best.pt", "last.pt"}
    assert any(folder.figures.glob("*.png"))
    assert not any(tmp_path.rglob("*.partial"))


def test_the_test_metrics_are_those_of_the_best_weights(tmp_path: Path, no_figures: None):
    config = small(trainer__steps=6, optimizer__lr=0.5, trainer__eval_every=1)
    result = go(config, tmp_path / "run")
    experiment = assemble(config)
    trainer = make_trainer(experiment, RunFolder(tmp_path / "run"))
    trainer.restore()
    assert trainer.state.best_step == result["best_step"]
    trainer.load_best()
    assert trainer.evaluate(experiment.splits.test)["mse"] == result["metrics"]["test/mse"]
    assert trainer.evaluate(experiment.splits.val)["loss"] == result["metrics"]["val/loss"]


def test_a_folder_that_holds_a_run_is_not_written_over(tmp_path: Path, no_figures: None):
    go(small(), tmp_path / "run")
    before = (tmp_path / "run" / "result.json").read_bytes()
    with pytest.raises(ConfigError, match="holds a run already"):
        go(small(), tmp_path / "run")
    assert (tmp_path / "run" / "result.json").read_bytes() == before


def test_a_run_that_is_refused_leaves_nothing(tmp_path: Path):
    with pytest.raises(ConfigError):
        go(make_run(solver="scipy_solver"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_that_diverges_says_so_in_its_result(tmp_path: Path, no_figures: None):
    config = small(optimizer="sgd", optimizer__lr=1e6, trainer__steps=50)
    with pytest.raises(RunError):
        go(config, tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["status"] in ("diverged", "failed")
    assert "optimizer.lr" in result["reason"]
    assert not (tmp_path / "run" / "traceback.txt").exists()


def test_a_solve_that_fails_ends_the_run_with_its_sentence(tmp_path: Path, no_figures: None):
    config = make_run(solver__max_steps=2, tolerance__rtol=1e-9, tolerance__atol=1e-9)
    with pytest.raises(SolveFailed, match=r"spent its budget of solver\.max_steps=2"):
        go(config, tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["status"] == "failed"
    assert "solver.max_steps=2" in result["reason"]


def test_a_longer_run_goes_on_from_a_shorter_one(tmp_path: Path, no_figures: None):
    whole = go(small(trainer__steps=6), tmp_path / "whole")
    go(small(trainer__steps=4), tmp_path / "parts")
    parts = go(small(trainer__steps=6), tmp_path / "parts", resume=True)
    assert parts["metrics"]["val/loss"] == whole["metrics"]["val/loss"]
    steps = [json.loads(line)["step"] for line in (tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()]
    assert sorted(set(steps)) == [1, 2, 3, 4, 5, 6]
    assert json.loads((tmp_path / "parts" / "result.json").read_text())["totals"]["steps"] == 6


def test_all_numbers_of_a_result_are_finite_or_null(tmp_path: Path, no_figures: None):
    result = go(small(), tmp_path / "run")
    assert all(math.isfinite(value) for value in result["metrics"].values())
    assert resolved(small())["trainer"]["steps"] == 2
    assert issubclass(Diverged, RunError)
