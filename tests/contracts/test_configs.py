"""Every file under configs/: it parses, says what it is, composes, and what it describes runs."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from node_runner.config import MANY, RunConfig, compose_run, config_path, to_run
from node_runner.datasets import DATASETS
from node_runner.runs.run import run as run_experiment
from tests.runs import smaller


CONFIGS = Path(config_path())
FILES = sorted(CONFIGS.rglob("*.yaml"))
EXPERIMENTS = sorted(file.stem for file in (CONFIGS / "experiment").glob("*.yaml"))


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


@pytest.mark.parametrize("file", sorted((CONFIGS / "pair").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_pair_belongs_to_a_data_set_and_a_model(file: Path):
    from node_runner.models import MODELS

    pairs = {f"{dataset}_{model}" for dataset in DATASETS.names() for model in MODELS.names()}
    assert file.stem in pairs


@pytest.mark.slow
@pytest.mark.parametrize("file", sorted((CONFIGS / "pair").glob("*.yaml")), ids=lambda file: file.stem)
def test_a_pair_composes_with_every_field_and_optimiser(file: Path):
    # A setting that only one of them has would refuse the others.
    from node_runner.models import MODELS

    model = max((name for name in MODELS.names() if file.stem.endswith(f"_{name}")), key=len)
    chosen = [f"dataset={file.stem.removesuffix(f'_{model}')}", f"model={model}"]
    # What a pair sets nothing of composes as it does without the pair.
    changed = [group for group in ("field", "optimizer") if group in OmegaConf.load(file)]
    options = {group: sorted(file.stem for file in (CONFIGS / group).glob("*.yaml")) for group in changed}
    # Side by side, so that each is chosen once.
    for i in range(max(map(len, options.values()), default=1)):
        names = {group: found[i % len(found)] for group, found in options.items()}
        run = compose_run([*chosen, *(f"{group}={name}" for group, name in names.items())])
        assert {group: getattr(run, group).name for group in changed} == names


# --- experiments -----------------------------------------------------------------------------------


def sweeps(name: str) -> dict[str, list[str]]:
    """What an experiment sweeps over: override -> values, as written."""
    content = OmegaConf.load(CONFIGS / "experiment" / f"{name}.yaml")
    params: Any = OmegaConf.select(content, "hydra.sweeper.params") or {}
    return {str(key): [part.strip() for part in str(values).split(",")] for key, values in params.items()}


def check_values(run: RunConfig, key: str, values: list[str]) -> None:
    """Every value that an experiment sweeps over is an option of its group, or fits the setting of its name."""
    for value in values:
        if value == "[]":  # none of a group of which any number may be chosen
            assert key in MANY
        elif (CONFIGS / key).is_dir():
            assert (CONFIGS / key / f"{value.strip('[]')}.yaml").is_file(), f"{key}={value}"
        else:
            changed = OmegaConf.structured(run)
            OmegaConf.update(changed, key, None if value == "null" else value, merge=False)
            to_run(changed)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_says_what_it_asks_how_to_run_it_and_what_to_expect(name: str):
    text = (CONFIGS / "experiment" / f"{name}.yaml").read_text(encoding="utf-8")
    assert text.startswith("# @package _global_\n")
    for heading in ("# Question: ", "# Command: ", "# Expect: ", "# Time: "):
        assert heading in text
    assert f"node-run experiment={name}" in text or f"node-run -m experiment={name}" in text


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_runs_two_steps(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
):
    # Figures take longer than all the rest, and have tests of their own.
    monkeypatch.setattr("node_runner.runs.run.draw", lambda *arguments: iter(()))
    grid = sweeps(name)
    first = [f"{key}={values[0]}" for key, values in grid.items()]
    run = compose_run([f"experiment={name}", *first, "debug=fast", "device=cpu", "logger=[]"])
    for key, values in grid.items():
        check_values(run, key, values)
    if run.solver.name == "euler_maruyama":
        pytest.importorskip("torchsde", reason="torchsde is not installed: pip install 'node-runner[sde]'")
    if run.dataset.name == "mnist":
        request.getfixturevalue("any_mnist")
    for key, size in smaller(run.dataset).items():
        setattr(run.dataset, key.removeprefix("dataset__"), size)
    if hasattr(run.field, "width"):
        run.field.width = 8  # experiments on alike data then share a library of engine=native
    if run.trainer.shooting is not None:
        run.trainer.shooting = 2  # any number of points can be cut into these
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
