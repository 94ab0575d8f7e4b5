"""The configuration of a run: composed, typed, checked and hashed."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from node_runner.config import (
    REGISTRIES,
    RunConfig,
    compose_run,
    config_hash,
    config_path,
    register_schemas,
    slug,
    to_run,
)
from node_runner.errors import ConfigError
from node_runner.settings import Activation, Place, Precision
from tests.runs import make_run


def composed(*overrides: str) -> DictConfig:
    """As Hydra composes it, before it is turned into objects."""
    register_schemas()
    with initialize_config_dir(config_path(), version_base="1.3"):
        return compose("config", list(overrides))


@pytest.fixture(scope="module")
def composed_defaults() -> DictConfig:
    return composed()


@pytest.fixture
def defaults(composed_defaults: DictConfig) -> DictConfig:
    """The defaults of a run, composed once; a copy for each test."""
    return copy.deepcopy(composed_defaults)


# --- composing ------------------------------------------------------------------------------------


def test_the_defaults_are_a_run():
    run = compose_run()
    assert isinstance(run, RunConfig)
    names = {
        group: getattr(run, group).name
        for group in ("dataset", "model", "field", "solver", "adjoint", "engine", "optimizer", "schedule")
    }
    assert names == {
        "dataset": "spiral", "model": "node", "field": "mlp", "solver": "dopri5", "adjoint": "off",
        "engine": "auto", "optimizer": "adam", "schedule": "cosine",
    }  # fmt: skip
    assert run.regulariser == {}
    assert set(run.logger) == {"tensorboard"}


def test_every_default_of_a_component_is_there_and_typed():
    run = compose_run(["field.activation=gelu", "device.precision=float64", "device=cpu"])
    declared = {item.name for item in dataclasses.fields(run.solver)}
    assert {"max_steps", "first_step", "safety"} <= declared
    assert run.field.activation is Activation.gelu
    assert (run.device.place, run.device.precision) == (Place.cpu, Precision.float64)


def test_several_regularisers_are_chosen_side_by_side():
    run = compose_run(["regulariser=[kinetic,jacobian]", "regulariser.kinetic.weight=0.5"])
    assert {name: item.weight for name, item in run.regulariser.items()} == {"kinetic": 0.5, "jacobian": 0.01}


def test_what_is_typed_wins_over_what_a_model_or_a_pair_asks_for():
    chosen = compose_run(["dataset=mnist", "model=cnf"])
    typed = compose_run(["dataset=mnist", "model=cnf", "field=mlp", "trainer.batch_size=7", "debug=fast"])
    assert chosen.field.name == "concatsquash"
    assert (typed.field.name, typed.trainer.batch_size) == ("mlp", 7)
    assert typed.trainer.steps == 2


# --- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("solver.rtoll=1", "rtoll"),
        ("nonsense=1", "nonsense"),
        ("trainer.steps=many", "many"),
        ("field.activation=rleu", "rleu"),
        ("field.width=1.5", "1.5"),
        ("solver=dopri6", "dopri6"),
        ("datset=spiral", "datset"),
    ],
)
def test_a_typo_is_refused_and_named(override: str, words: str):
    with pytest.raises((HydraException, OmegaConfBaseException)) as caught:
        composed(override)
    assert words in str(caught.value) or words in str(caught.value.__cause__)


@pytest.mark.parametrize(("override", "key"), [("+foo=1", "foo"), ("+solver.foo=1", "solver.foo")])
def test_a_key_that_is_added_by_force_is_refused(override: str, key: str):
    with pytest.raises(ConfigError, match=rf"^{key.replace('.', '[.]')}: no such setting \(known: "):
        compose_run([override])


@pytest.mark.parametrize("group", ["trainer", "tolerance", "device", "dataset", "model", "optimizer"])
def test_a_key_that_no_schema_declares_is_refused_in_every_group(group: str, defaults: DictConfig):
    OmegaConf.update(defaults, f"{group}.foo", 1, force_add=True)
    with pytest.raises(ConfigError, match=rf"^{group}\.foo: no such setting \(known: "):
        to_run(defaults)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("tolerance.rtol", 0, "expected a number above 0 and of at most 1, got 0"),
        ("tolerance.rtol", "nan", "expected a finite number, got nan"),
        ("trainer.steps", 0, "expected a number of at least 1, got 0"),
        ("optimizer.lr", -1, "expected a number above 0, got -1"),
        ("optimizer.beta1", 1.5, r"expected a number from 0 to 1, got 1\.5"),
        ("dataset.noise", -1, "expected a number of at least 0, got -1"),
        ("seed", -1, "expected a number from 0 to 9.223372e.18, got -1"),
    ],
)
def test_a_value_out_of_its_range_is_refused_by_its_key(key: str, value: Any, message: str, defaults: DictConfig):
    OmegaConf.update(defaults, key, value)
    with pytest.raises(ConfigError, match=f"^{key.replace('.', '[.]')}: {message}"):
        to_run(defaults)


@pytest.mark.parametrize("override", ["+regulariser.foo=1", "+regulariser.kinetic={name:kinetic,weight:-1}"])
def test_a_regulariser_that_is_not_chosen_from_its_group_is_refused(override: str):
    with pytest.raises(ConfigError, match=r"^regulariser\.(foo|kinetic)"):
        compose_run([override])


def test_a_value_that_must_be_given_is_asked_for(defaults: DictConfig):
    defaults.dataset.seed = "???"
    with pytest.raises(ConfigError, match=r"^dataset\.seed: must be given$"):
        to_run(defaults)


def test_a_configuration_of_something_else_is_refused():
    with pytest.raises(ConfigError, match="must begin with run_schema"):
        to_run(OmegaConf.create({"a": 1}))


# --- names and hashes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "defaults"),
        (["solver=dopri5"], "solver-dopri5"),
        (["solver=dopri5", "tolerance.rtol=1e-3"], "solver-dopri5__tolerance.rtol-1e-3"),
        (["regulariser=[kinetic,jacobian]"], "regulariser-_kinetic__jacobian_"),
        (["dataset.root=/data/x y"], "dataset.root-_data_x_y"),
        (["optimizer.lr=+1", "sweep=mine"], "optimizer.lr-+1"),
    ],
)
def test_a_slug_is_a_readable_folder_name(overrides: list[str], name: str):
    assert slug(overrides) == name


def test_long_slugs_are_cut_and_told_apart():
    one, two = (slug([f"dataset.root={'x' * 150}", f"seed={seed}"]) for seed in (1, 2))
    assert len(one) <= 150
    assert one != two
    assert one == slug([f"dataset.root={'x' * 150}", "seed=1"])


def test_long_slugs_keep_what_the_jobs_of_a_sweep_differ_in():
    own = ["dataset=file", "dataset.path=measured/wells.csv", "dataset.id=experiment", "dataset.time=time_s"]
    name = slug([*own, "solver=dopri5", "tolerance.rtol=1e-3", "adjoint=off", "seed=2"])
    assert name.startswith(
        "dataset-file__path-measured_wells.csv__id-experiment__time-time_s__solver-dopri5__rtol-1e-3"
    )
    assert "__adjoint-off__seed-2_" in name


def test_a_hash_tells_configurations_apart_and_is_the_same_for_equal_ones():
    base = make_run()
    assert config_hash(base) == config_hash(make_run())
    others = [make_run(seed=1), make_run(tolerance__rtol=1e-5), make_run(solver="rk4"), make_run(field__width=9),
              make_run(regularisers=["kinetic"])]  # fmt: skip
    hashes = {config_hash(run) for run in (base, *others)}
    assert len(hashes) == len(others) + 1
    assert all(len(value) == 12 and int(value, 16) >= 0 for value in hashes)


def test_loggers_and_the_name_of_a_sweep_do_not_change_the_hash():
    run = make_run()
    before = config_hash(run)
    run.sweep = "mine"
    run.logger = {"tensorboard": next(r for r in REGISTRIES if r.group == "logger").schema("tensorboard")()}
    assert config_hash(run) == before
