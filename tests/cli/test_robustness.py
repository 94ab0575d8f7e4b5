"""`node-run robustness`: where the noise goes, and the command on small runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from node_runner.cli.robustness.command import noisy
from node_runner.config import compose_run
from node_runner.runs.run import run as train
from node_runner.views import DataSpec, Labelled, Series, Trajectories, View
from tests.cli.conftest import MOONS, NodeRun


SPEC = DataSpec("data", View.labelled, (2,), torch.zeros(2), torch.tensor([1.0, 10.0], dtype=torch.float64))


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished runs of a model and its discrete twin, two seeds each."""
    root = tmp_path_factory.mktemp("twins")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("node_runner.runs.run.draw", lambda *_: iter(()))
        for model in ("node", "resnet"):
            for seed in (0, 1):
                overrides = [*MOONS, f"model={model}", f"seed={seed}", "dataset.test=200"]
                train(compose_run(overrides), root / f"{model}{seed}", live=False)
    return root


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_noise_has_the_size_that_is_asked_for():
    part = Labelled(torch.zeros(20_000, 2), torch.zeros(20_000, dtype=torch.int64))
    found = noisy(part, 0.3, SPEC, generator())
    assert found.x.std(dim=0).tolist() == pytest.approx([0.3, 3.0], rel=0.02)
    assert found.y is part.y
    assert torch.equal(noisy(part, 0.0, SPEC, generator()).x, part.x)


def test_noise_is_on_what_the_model_is_given_alone():
    ys = torch.arange(24.0).reshape(3, 4, 2)
    path = noisy(Trajectories(torch.arange(4.0), ys), 1.0, SPEC, generator())
    assert torch.equal(path.ys[:, 1:], ys[:, 1:]) and not torch.equal(path.ys[:, 0], ys[:, 0])
    seen = torch.ones_like(ys, dtype=torch.bool)
    series = noisy(Series(torch.arange(4.0), ys, seen, seen), 1.0, SPEC, generator())
    assert torch.equal(series.target, ys) and not torch.equal(series.ys, ys)


def test_twins_are_measured_under_the_same_noise(node_run: NodeRun, twins: Path):
    levels = ["--level", "2", "--level", "0"]
    done = node_run("robustness", str(twins), *levels, "--draws", "2", "--out", "noise.json")
    assert done.code == 0, done.err
    assert done.out.splitlines()[:2] == ["test/accuracy", "noise  model=node  model=resnet"]
    found = json.loads(Path("noise.json").read_text())
    assert found["metric"] == "accuracy" and found["levels"] == [0, 2]
    assert sorted(found["runs"].values()) == ["model=node"] * 2 + ["model=resnet"] * 2
    for name in ("node", "resnet"):
        recorded = [json.loads((twins / f"{name}{seed}" / "result.json").read_text()) for seed in (0, 1)]
        clean = [values[0] for values in found["by_run"][f"model={name}"]]
        assert clean == pytest.approx([result["metrics"]["test/accuracy"] for result in recorded])
    assert Path("noise.png").read_bytes().startswith(b"\x89PNG")


def test_one_run_of_trajectories_is_measured_too(node_run: NodeRun, spiral: Path):
    done = node_run("robustness", str(spiral), "--level", "0", "--level", "0.5", "--draws", "1")
    assert done.code == 0, done.err
    found = json.loads((spiral / "robustness.json").read_text())
    clean, strained = found["mean"]["spiral"]
    recorded = json.loads((spiral / "result.json").read_text())["metrics"]
    assert found["metric"] == "relative_rmse" and clean == pytest.approx(recorded["test/relative_rmse"], rel=1e-6)
    assert strained > clean


@pytest.mark.parametrize(
    ("runs", "options", "said"),
    [
        (["spiral", "classes"], [], "these runs have dataset=spiral and dataset=two_moons; name runs on the same data"),
        (["flow"], [], "model=cnf learned a density, which has no answer to be wrong about"),
        (["flow", "classes"], [], "these runs learned from points and labelled"),
        (["spiral"], ["--level", "-1"], "--level -1: expected 0 or more"),
        (["spiral"], ["--out", "a.csv"], "--out a.csv: expected a file ending in .json"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    node_run: NodeRun, here: Path, trained: Path, runs: list[str], options: list[str], said: str
):
    done = node_run("robustness", *(str(trained / run) for run in runs), *options)
    assert done.code == 2
    assert said in done.line
    assert list(here.iterdir()) == []


def test_the_law_of_a_process_is_no_answer(node_run: NodeRun, here: Path):
    small = ("dataset.times=8", "dataset.train=8", "dataset.val=4", "dataset.test=4")
    for seed in ("0", "1"):
        done = node_run(
            "dataset=ornstein_uhlenbeck", "model=latent", "solver=rk4", "debug=fast", "device=cpu", "logger=[]",
            f"seed={seed}", f"hydra.run.dir=runs/{seed}", *small,
        )  # fmt: skip
        assert done.code == 0, done.err
    for command in ("robustness", "ensemble"):
        done = node_run(command, "runs")
        assert done.code == 2
        assert "model=latent learned the law of a process, which has no" in done.line
