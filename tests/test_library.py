"""The library without Hydra: what is completed, mistakes in one line each, what training leaves of itself."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

import node_runner as nr
from node_runner import library
from node_runner.config import compose_run
from node_runner.errors import ConfigError, SolveFailed
from node_runner.runs.run import run as train
from node_runner.settings import FirstStates
from node_runner.training.loop import Trainer


@pytest.mark.parametrize("added", [{"first_states": FirstStates.learned}, {"shooting": 4}, {"residual": 0.1}], ids=str)
def test_what_is_learned_along_with_a_model_does_not_stay_with_it(added: dict[str, object]):
    data = library.dataset("pendulum", train=4, val=2, test=2, long=2, times=7)
    model = library.model("node", data, library.solver("midpoint"), field_settings={"width": 8})
    before = set(model.state_dict())
    metrics = library.fit(model, data, steps=3, batch_size=4, window=None, **added)
    assert set(model.state_dict()) == before
    assert ("residual" in added) == any(name.startswith("equation/") for name in metrics)


def test_what_can_be_used_is_completed():
    assert {"dataset", "solver", "model", "fit", "load", "odeint", "odeint_adjoint", "explain"} <= set(dir(nr))
    assert all(getattr(nr, name) is not None for name in nr.__all__)


def test_tolerances_and_training_are_checked_as_settings_are():
    with pytest.raises(ConfigError, match=r"tolerance.rtol: Value 'x'"):
        nr.solver("dopri5", rtol="x")
    with pytest.raises(ConfigError, match=r"tolerance.atol: expected a number above 0, got -1.0"):
        nr.solver("dopri5", atol=-1)
    data = nr.dataset("spiral", train=2, val=2, test=2, long=2, times=8)
    model = nr.model("node", data, nr.solver("midpoint"))
    with pytest.raises(ConfigError, match=r"trainer.stepz: no such setting; did you mean 'steps'"):
        nr.fit(model, data, stepz=5)
    with pytest.raises(ConfigError, match=r"trainer.steps: Value 'many'"):
        nr.fit(model, data, steps="many")


@pytest.mark.parametrize("name", ["cnf", "flow_matching"])
def test_a_flow_is_told_the_time_unless_its_field_is_chosen(name: str):
    data = nr.dataset("two_moons", train=9, val=1, test=1)
    assert nr.model(name, data, nr.solver("midpoint")).field.time_dependent


def test_names_in_the_place_of_parts_are_refused_with_what_makes_the_part():
    with pytest.raises(ConfigError, match=r"use nr.dataset\('spiral'\)"):
        nr.model("node", "spiral", nr.solver())
    with pytest.raises(ConfigError, match=r"use nr.solver\('rk4'\)"):
        nr.model("node", nr.dataset("spiral"), "rk4")


def test_a_test_that_cannot_be_solved_leaves_the_others(monkeypatch: pytest.MonkeyPatch, caplog: Any):
    data = nr.dataset("spiral", train=2, val=2, test=2, long=2, times=8)
    model = nr.model("node", data, nr.solver("midpoint"), field_settings={"width": 8})
    evaluate = Trainer.evaluate

    def failing(self: Trainer, part: Any) -> dict[str, float]:
        if len(part.ts) > 8:
            raise SolveFailed("too far")
        return evaluate(self, part)

    monkeypatch.setattr(Trainer, "evaluate", failing)
    found = nr.fit(model, data, steps=2)
    assert math.isnan(found["test_long/loss"]) and math.isfinite(found["test/loss"])
    assert caplog.messages == ["test_long could not be measured: too far"]


def test_training_says_a_line_a_validation_if_it_is_asked_to():
    data = nr.dataset("spiral", train=4, val=2, test=2, long=0, times=7)
    model = nr.model("node", data, nr.solver("midpoint"), field_settings={"width": 8})
    lines: list[str] = []
    nr.fit(model, data, steps=10, log_every=5, eval_every=5, batch_size=4, window=None, report=lines.append)
    assert [line[:10] for line in lines] == ["step  5/10", "step 10/10"]
    assert all("train/loss" in line and "val/loss" in line for line in lines)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """The folder of a run that node-run trained, and its test/mse."""
    path = tmp_path_factory.mktemp("runs") / "spiral"
    small = ("train=8", "val=4", "test=4", "long=0", "times=8")
    overrides = ("trainer.steps=4", "trainer.eval_every=2", "trainer.window=null", "solver=midpoint", "field.width=8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("node_runner.runs.run.draw", lambda *_: iter(()))
        config = compose_run([*overrides, *(f"dataset.{size}" for size in small), "logger=[]", "device=cpu"])
        return path, train(config, path, live=False)["metrics"]["test/mse"]


def test_a_run_is_loaded_with_its_weights_and_data(finished: tuple[Path, float]):
    path, mse = finished
    run = nr.load(path)
    assert not run.model.training and run.config.trainer.steps == 4
    test = run.splits.test
    with torch.no_grad():
        predicted = run.model(test.ys[:, 0], test.ts).value.transpose(0, 1)
    assert float((predicted - test.ys)[:, 1:].square().mean()) == pytest.approx(mse, rel=1e-5)
    other = nr.load(str(path), "device.precision=float64", checkpoint="last")
    assert next(other.model.parameters()).dtype is torch.float64


def test_what_is_no_run_is_not_loaded(finished: tuple[Path, float], tmp_path: Path):
    with pytest.raises(ConfigError, match=f"{tmp_path}: not a run; it has no config.yaml"):
        nr.load(tmp_path)
    with pytest.raises(ConfigError, match="checkpoint=first: expected best or last"):
        nr.load(finished[0], checkpoint="first")
    with pytest.raises(ConfigError, match="model=cnf: the weights fit their own model"):
        nr.load(finished[0], "model=cnf")


def test_a_model_can_be_called_before_it_is_trained():
    data = nr.dataset("spiral")
    model = nr.model("node", data, nr.solver("dopri5"))
    assert model(torch.randn(3, 2), torch.linspace(0, 1, 4)).value.shape == (4, 3, 2)


def test_what_is_no_model_is_named():
    with pytest.raises(ConfigError, match=r"Linear has no `view` that it learns from; use nr\.model"):
        nr.fit(torch.nn.Linear(2, 2), nr.dataset("spiral"))
