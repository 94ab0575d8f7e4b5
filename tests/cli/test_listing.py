"""`node-run list`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from node_runner.cli.list.command import groups
from node_runner.cli.list.settings_table import CLASSES, settings_of, type_text
from node_runner.config import REGISTRIES, compose_run
from node_runner.settings import Activation, Count, Positive, Relative, Share
from tests.cli.conftest import NodeRun


OPTIONS = [(group, option.name) for group, options in groups(None).items() for option in options]


def test_every_component_is_listed_with_what_it_is(node_run: NodeRun):
    done = node_run("list")
    assert done.code == 0
    for registry in REGISTRIES:
        for name in registry.names():
            assert registry.signature(name).about.rstrip(".") in done.out
            assert name in done.out


def test_every_option_says_what_it_is():
    assert [option for options in groups(None).values() for option in options if not option.about] == []


def test_the_defaults_are_marked(node_run: NodeRun):
    lines = node_run("list", "solver").out.splitlines()
    assert [line.split()[0] for line in lines if line.split()[1:2] == ["*"]] == ["dopri5"]


def test_a_group_says_what_its_options_are(node_run: NodeRun):
    done = node_run("list", "tolerance")
    assert "tight" in done.out and "rtol 1e-5, atol 1e-6" in done.out
    assert "dopri5" not in done.out


@pytest.mark.parametrize("arguments", [("dataset", "spiral"), ("dataset=spiral",)], ids=" ".join)
def test_an_option_shows_type_default_range_and_meaning(node_run: NodeRun, arguments: tuple[str, ...]):
    lines = node_run("list", *arguments).out.splitlines()
    noise = next(line for line in lines if line.startswith("dataset.noise"))
    assert "number of at least 0" in noise and "0.0" in noise and "standard deviation" in noise
    form = next(line for line in lines if line.startswith("dataset.form"))
    assert "one of linear, cubic" in form


def test_values_of_the_yaml_come_before_those_of_the_code(node_run: NodeRun):
    lines = node_run("list", "tolerance", "tight").out.splitlines()
    assert any(line.startswith("tolerance.rtol") and "1e-5" in line for line in lines)


@pytest.mark.parametrize(("group", "name"), OPTIONS, ids=lambda value: value)
def test_the_settings_of_every_option_can_be_shown(group: str, name: str):
    option = next(option for option in groups(None)[group] if option.name == name)
    registry = next((registry for registry in REGISTRIES if registry.group == group), None)
    for key, kind, default, about in settings_of(group, option.file, registry):
        assert key and kind and default
        assert registry is None or key.startswith(f"{group}.")
        # In words, and not by a symbol or by what is said elsewhere.
        described = registry is not None or group in CLASSES
        assert not described or len(re.findall(r"[A-Za-z]{2,}", about)) > 1, f"{key}: {about}"
        assert not re.match(r"(see|as for) ", about), f"{key}: {about}"


def test_a_setting_of_a_group_of_several_is_shown_by_the_key_that_sets_it(node_run: NodeRun):
    assert "regulariser.kinetic.weight" in node_run("list", "regulariser", "kinetic").out
    assert compose_run(["regulariser=kinetic", "regulariser.kinetic.weight=0.5"]).regulariser["kinetic"].weight == 0.5


def test_an_experiment_is_listed_by_the_whole_of_its_question():
    about = {option.name: option.about for option in groups(None)["experiment"]}
    assert all(text.endswith("?") and not text.startswith("Question") for text in about.values())
    assert about["latent_sde"].endswith("what does a latent ODE make of the same paths?")


def test_an_experiment_shows_its_command_what_to_expect_and_how_long_it_takes(node_run: NodeRun):
    lines = node_run("list", "experiment", "spiral_fit").out.splitlines()
    assert lines[0].startswith("experiment=spiral_fit: can a small network")
    assert lines[1] == "Command: node-run experiment=spiral_fit"
    assert lines[2].startswith("Expect: ") and any(line.startswith("Time: ") for line in lines)


def test_a_pair_is_listed_in_a_sentence_and_shown_with_all_its_notes(node_run: NodeRun):
    assert max(len(line) for line in node_run("list", "pair").out.splitlines()) < 200
    assert "a Gaussian copula has 1.45 bits/dim" in node_run("list", "pair", "mnist_cnf").out


def test_types_are_worded():
    assert type_text(Count | None) == "whole number of at least 1 or null"
    assert type_text(Positive) == "number above 0"
    assert type_text(Share) == "number from 0 to 1"
    assert type_text(bool) == "true or false"
    assert type_text(str | None) == "text or null"
    assert type_text(Relative | None) == "number above 0 and of at most 1 or null"
    assert type_text(list[list[float]] | None) == "list of lists of numbers or null"
    assert type_text(Activation).startswith("one of tanh, softplus")


def test_options_of_the_user_s_own_are_listed(node_run: NodeRun, here: Path):
    (here / "conf" / "dataset").mkdir(parents=True)
    (here / "conf" / "dataset" / "mine.yaml").write_text(
        "# what I measured\ndefaults: [/schema/dataset/spiral@_here_, _self_]\nnoise: 0.5\n"
    )
    assert "what I measured [conf]" in node_run("list", "dataset", "--config-dir", "conf").out
    shown = node_run("list", "dataset", "mine", "--config-dir", "conf").out
    assert any(line.startswith("dataset.noise") and "0.5" in line for line in shown.splitlines())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["datset"], "datset: no such group; did you mean 'dataset'?"),
        (["dataset.spiral"], "dataset.spiral: no such group; did you mean `node-run list dataset spiral`?"),
        (["hamiltonian"], "hamiltonian: no such group; did you mean `node-run list model hamiltonian`?"),
        (["tolerance.rtol"], "tolerance.rtol: no such group; `node-run list tolerance OPTION` shows"),
        (["dataset", "spira"], "dataset=spira: no such option; did you mean 'spiral'?"),
        (["--config-dir", "nope"], "--config-dir nope: no such folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_not_there_is_named(node_run: NodeRun, arguments: list[str], said: str):
    done = node_run("list", *arguments)
    assert done.code == 2
    assert done.line.startswith(f"node-run: {said}")
