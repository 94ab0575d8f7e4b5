"""What a run says of itself: what it used, and what it did not."""

from __future__ import annotations

from pathlib import Path

import pytest

from node_runner.assemble import assemble
from node_runner.config import resolved
from node_runner.errors import ConfigError
from node_runner.reporting.hparams import hparams
from node_runner.runs.result import Ending, make_result, title
from tests.runs import make_run, trainer_of


def test_a_run_names_its_solver_and_its_adjoint():
    run = make_run(solver="rk4", adjoint="on")
    words = title(assemble(run))
    assert ", rk4, adjoint on, cpu float64, seed 0" in words
    assert "play no part" not in words


@pytest.mark.parametrize(
    ("dataset", "model", "named"),
    [
        ("spiral", "resnet", "; solver, tolerance, adjoint and engine play no part"),
        ("turns", "rnn", "; field, solver, tolerance, adjoint and engine play no part"),
    ],
)
def test_a_run_without_a_solve_says_so_and_names_no_solver(dataset: str, model: str, named: str, tmp_path: Path):
    run = make_run(dataset=dataset, model=model, solver="rk4", adjoint="on")
    trainer, experiment, _ = trainer_of(run, tmp_path)
    words = title(experiment)
    assert words.endswith(named)
    assert "rk4" not in words and "adjoint on" not in words
    assert ("field mlp" in words) is ("field" not in named)
    trainer.train()
    result = make_result(experiment, trainer, Ending("completed", ""))
    assert result["title"] == f"{dataset} x {model}"
    unused = [key for key, value in result["choices"].items() if value is None]
    assert unused == [*(["field"] if model == "rnn" else []), "solver", "rtol", "atol", "adjoint", "engine"]


@pytest.mark.parametrize(
    ("dataset", "model", "solver"),
    [("two_moons", "flow_matching", "midpoint"), ("ornstein_uhlenbeck", "neural_sde", "euler_maruyama")],
)
def test_a_run_that_solves_without_a_gradient_names_no_adjoint(dataset: str, model: str, solver: str, tmp_path: Path):
    run = make_run(dataset=dataset, model=model, field="concatsquash", solver=solver, engine="auto")
    run.dataset.noise = 0.0  # type: ignore[attr-defined]
    trainer, experiment, _ = trainer_of(run, tmp_path)
    words = title(experiment)
    assert f", {solver}, " in words and words.endswith("seed 0; adjoint plays no part")
    result = make_result(experiment, trainer, Ending("completed", ""))
    assert result["title"] == f"{dataset} x {model} x {solver}"
    assert [key for key, value in result["choices"].items() if value is None] == ["rtol", "atol", "adjoint"]


@pytest.mark.parametrize("solver", ["dopri5", "radau5", "fixed_adams", "rk4", "explicit_adams", "gl4"])
def test_fixed_steps_have_no_tolerance_but_a_corrector_s(solver: str, tmp_path: Path):
    run = make_run(solver=solver, engine="torchdiffeq")
    trainer, experiment, _ = trainer_of(run, tmp_path)
    trainer.train()
    result = make_result(experiment, trainer, Ending("completed", ""))
    fixed = solver in ("rk4", "explicit_adams", "gl4")
    assert result["unused"] == (["tolerance"] if fixed else [])
    assert (result["choices"]["rtol"] is None) is fixed
    assert ("at rtol" in title(experiment)) is not fixed
    row = hparams(resolved(experiment.config), result)
    assert (row["rtol"] == "none") is fixed and (row["step_size"] == "adaptive") is experiment.method.adaptive


def test_tensorboard_s_table_has_none_for_what_plays_no_part():
    run = make_run(model="resnet")
    config = {
        "dataset": {"name": "spiral"}, "model": {"name": "resnet"}, "field": {"name": "mlp"},
        "solver": {"name": "rk4", "step_size": 0.1}, "tolerance": {"rtol": 1e-3, "atol": 1e-4},
        "adjoint": {"name": "off"}, "optimizer": {"name": "adam", "lr": 1e-3}, "trainer": {"batch_size": 8},
        "regulariser": {}, "device": {"precision": "float32"}, "seed": run.seed,
    }  # fmt: skip
    unused = ["solver", "tolerance", "adjoint", "engine"]
    result = {"status": "completed", "choices": {"engine": None, "device": "cpu"}, "unused": unused}
    row = hparams(config, result)
    assert [name for name, value in row.items() if value == "none"] == [
        "solver", "rtol", "atol", "step_size", "adjoint", "engine", "regulariser"
    ]  # fmt: skip


def test_a_regulariser_without_a_solve_is_refused():
    with pytest.raises(ConfigError, match=r"^model=rnn has no solve to integrate along, got regulariser=kinetic: use "):
        assemble(make_run(dataset="turns", model="rnn", regularisers=["kinetic"]))
