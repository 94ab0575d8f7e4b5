"""The configuration of a run, saved and loaded again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from node_runner.config import RunConfig, compose_run, config_hash, resolved
from node_runner.errors import ConfigError
from node_runner.runs.config_file import load_run
from node_runner.settings import Activation, Place
from tests.runs import make_run


KINDS: dict[str, list[str]] = {
    "defaults": [],
    "trajectories": ["dataset=lotka-volterra", "model=augmented", "field.activation=sin", "trainer.window=5"],
    "classes": ["dataset=digits", "field=conv", "solver=rk4", "solver.step_size=0.5", "optimizer=sgd"],
    "density": ["dataset=two_moons", "model=cnf", "model.trace=hutchinson", "regulariser=[kinetic,jacobian]"],
    "images": ["dataset=mnist", "model=cnf", "adjoint=seminorm", "tolerance=schedule"],
    "scipy": ["solver=scipy_solver", "solver.solver=Radau", "adjoint=on", "optimizer=lbfgs", "logger=[]"],
    "lists": ["dataset.start=[[2.0,0.0]]", "schedule=step", "schedule.drops=[0.5]", "device.precision=float64"],
}
"""Overrides by what is learned, or by what is special in them."""


def save(run: RunConfig, path: Path) -> Path:
    """As a run saves it."""
    OmegaConf.save(OmegaConf.create(resolved(run)), path)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_was_saved_is_loaded_as_it_was(kind: str, tmp_path: Path):
    run = compose_run(KINDS[kind])
    again = load_run(save(run, tmp_path / "config.yaml"))
    assert again == run
    assert resolved(again) == resolved(run)
    assert config_hash(again) == config_hash(run)
    assert type(again.tolerance) is type(run.tolerance)


@pytest.mark.parametrize(
    ("override", "where", "value"),
    [
        ("trainer.steps=77", "trainer.steps", 77),
        ("field.activation=relu", "field.activation", Activation.relu),
        ("tolerance.eval_rtol=1e-7", "tolerance.eval_rtol", 1e-7),
        ("solver=rk4", "solver.name", "rk4"),
        ("adjoint=on", "adjoint.name", "on"),
        ("tolerance=tight", "tolerance.rtol", 1e-5),
        ("device=cpu", "device.place", Place.cpu),
    ],
)
def test_what_was_saved_can_be_changed_on_loading(override: str, where: str, value: Any, tmp_path: Path):
    run = load_run(save(make_run(), tmp_path / "config.yaml"), [override])
    found: Any = run
    for part in where.split("."):
        found = getattr(found, part)
    assert found == value


@pytest.mark.parametrize(
    "override", ["+trainer.foo=1", "~trainer", "seed=1,2", "solver=nope", "trainer.steps=0", "solver=[rk4,dopri5]"]
)
def test_changes_that_make_no_sense_are_refused_on_loading(override: str, tmp_path: Path):
    with pytest.raises(ConfigError):
        load_run(save(make_run(), tmp_path / "config.yaml"), [override])


@pytest.mark.parametrize("override", ["trainer.nonsense=1", "trainer.steps=many", "field.activation=rleu"])
def test_changes_that_do_not_fit_the_schema_are_refused_on_loading(override: str, tmp_path: Path):
    with pytest.raises((ConfigError, HydraException, OmegaConfBaseException)):
        load_run(save(make_run(), tmp_path / "config.yaml"), [override])


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"config\.yaml: no such file"):
        load_run(tmp_path / "config.yaml")


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda plain: plain["solver"].update(name="dopri6"), "no such solver; did you mean 'dopri5'"),
        (lambda plain: plain["solver"].update(nonsense=1), "nonsense"),
        (lambda plain: plain["trainer"].update(steps="many"), "many"),
        (lambda plain: plain.pop("dataset"), "dataset"),
        (lambda plain: plain["tolerance"].update(rtol=-1.0), r"tolerance\.rtol: expected a number above 0"),
    ],
    ids=["unknown-component", "unknown-setting", "wrong-type", "missing-group", "out-of-range"],
)
def test_a_file_that_does_not_fit_is_refused(damage: Any, why: str, tmp_path: Path):
    plain = resolved(make_run())
    damage(plain)
    OmegaConf.save(OmegaConf.create(plain), tmp_path / "config.yaml")
    with pytest.raises(ConfigError, match=why):
        load_run(tmp_path / "config.yaml")


@pytest.mark.parametrize("text", ["a: [1,\n", "[1, 2]\n", "dataset\n", ""], ids=["no-yaml", "list", "word", "empty"])
def test_a_file_that_holds_no_configuration_is_refused(text: str, tmp_path: Path):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"config\.yaml: "):
        load_run(tmp_path / "config.yaml")


def test_a_saved_run_holds_plain_values_only(tmp_path: Path):
    def plain(value: Any) -> bool:
        if isinstance(value, dict):
            return all(isinstance(key, str) and plain(item) for key, item in value.items())
        if isinstance(value, list):
            return all(map(plain, value))
        return value is None or type(value) in (str, int, float, bool)

    assert plain(resolved(compose_run(KINDS["density"])))
