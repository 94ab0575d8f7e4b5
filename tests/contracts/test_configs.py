"""Every file under configs/: it parses, says what it is, composes, and what it describes runs."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from node_runner.config import compose_run, config_path, to_run
from node_runner.datasets import DATASETS
from node_runner.run import run as run_experiment
from tests.runs import smaller_overrides


CONFIGS = Path(config_path())
FILES = sorted(CONFIGS.rglob("*.yaml"))
EXPERIMENTS = sorted(file.stem for file in (CONFIGS / "experiment").glob("*.yaml"))
PLAIN_GROUPS = ("tolerance", "trainer", "device", "debug")


def relative(file: Path) -> str:
    return str(file.relative_to(CONFIGS))


@pytest.mark.parametrize("file", FILES, ids=relative)
def test_every_file_parses(file: Path):
    OmegaConf.load(file)


@pytest.mark.parametrize("file", FILES, ids=relative)
def test_every_file_begins_with_a_comment_that_says_what_it_is(file: Path):
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith("# @package")]
    assert lines[0].startswith("# ")
    assert len(lines[0]) > 5


@pytest.mark.parametrize("file", FILES, ids=relative)
def test_a_package_line_comes_first_where_there_is_one(file: Path):
    # Hydra ignores it anywhere else.
    text = file.read_text(encoding="utf-8")
    assert text.count("@package") == 0 or text.startswith("# @package")


@pytest.mark.parametrize(
    ("group", "option"),
    [(group, file.stem) for group in PLAIN_GROUPS for file in sorted((CONFIGS / group).glob("*.yaml"))],
)
def test_every_option_of_a_plain_group_makes_a_run(group: str, option: str):
    compose_run([f"{group}={option}"])


@pytest.mark.parametrize("file", sorted((CONFIGS / "pair").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_pair_belongs_to_a_data_set_and_a_model(file: Path):
    from node_runner.models import MODELS

    pairs = {f"{dataset}_{model}" for dataset in DATASETS.names() for model in MODELS.names()}
    assert file.stem in pairs


# --- experiments -----------------------------------------------------------------------------------


def sweeps(name: str) -> dict[str, list[str]]:
    """What an experiment sweeps over: override -> values, as written."""
    content = OmegaConf.load(CONFIGS / "experiment" / f"{name}.yaml")
    params: Any = OmegaConf.select(content, "hydra.sweeper.params") or {}
    return {str(key): [part.strip() for part in str(values).split(",")] for key, values in params.items()}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_says_what_it_asks_how_to_run_it_and_what_to_expect(name: str):
    text = (CONFIGS / "experiment" / f"{name}.yaml").read_text(encoding="utf-8")
    assert text.startswith("# @package _global_\n")
    for heading in ("# Question: ", "# Command: ", "# Expect: ", "# Time: "):
        assert heading in text
    assert f"node-run experiment={name}" in text or f"node-run -m experiment={name}" in text


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_value_that_an_experiment_sweeps_over_makes_a_run(name: str):
    grid = sweeps(name)
    longest = max(map(len, grid.values()), default=0)
    # Each value once, beside some value of each other key.
    for i in range(longest):
        compose_run([f"experiment={name}", *(f"{key}={values[i % len(values)]}" for key, values in grid.items())])


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_runs_two_steps(name: str, tmp_path: Path, request: pytest.FixtureRequest):
    first = [f"{key}={values[0]}" for key, values in sweeps(name).items()]
    overrides = [f"experiment={name}", *first, "debug=fast", "device=cpu", "logger=[]"]
    run = compose_run(overrides)
    if run.dataset.name == "mnist":
        request.getfixturevalue("any_mnist")
    asked = {override.split("=")[0] for override in first}
    small = [item for item in smaller_overrides(run.dataset) if item.split("=")[0] not in asked]
    run = compose_run([*overrides, *small])
    result = run_experiment(run, tmp_path / "run", live=False)
    assert result["status"] == "completed"
    assert result["totals"]["steps"] == 2
    assert math.isfinite(result["metrics"]["test/loss"])
    assert {entry.name for entry in (tmp_path / "run").iterdir()} >= {
        "config.yaml", "environment.json", "metrics.jsonl", "result.json", "checkpoints", "figures",
    }  # fmt: skip


def test_experiments_differ_from_one_another():
    texts = {name: (CONFIGS / "experiment" / f"{name}.yaml").read_text(encoding="utf-8") for name in EXPERIMENTS}
    for one, other in itertools.combinations(EXPERIMENTS, 2):
        assert texts[one] != texts[other]


def test_the_configuration_of_a_run_is_what_to_run_makes_of_it():
    assert to_run(OmegaConf.structured(compose_run(["logger=[]"]))) == compose_run(["logger=[]"])
