"""`node-run sample`."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from node_runner.cli.sample_figures import draw_images, draw_points, draw_trajectories
from tests.cli.conftest import NodeRun


PNG = b"\x89PNG"


def test_points_come_with_their_density(node_run: NodeRun, trained: Path):
    done = node_run("sample", str(trained / "flow"), "--count", "50", "--seed", "3", "--out", "new/points.npz")
    assert done.code == 0
    assert "wrote new/points.npz, new/points.png" in done.err
    with np.load("new/points.npz") as drawn:
        assert drawn["samples"].shape == (50, 2) and drawn["log_density"].shape == (50,)
        assert np.isfinite(drawn["log_density"]).all()
    assert Path("new/points.png").read_bytes().startswith(PNG)


def test_the_seed_decides_what_is_drawn(node_run: NodeRun, trained: Path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        node_run("sample", str(trained / "flow"), "--count", "5", "--seed", str(seed), "--out", f"{name}.npz")
    drawn = []
    for name in "abc":
        with np.load(f"{name}.npz") as file:
            drawn.append(file["samples"])
    a, b, c = drawn
    assert np.array_equal(a, b) and not np.array_equal(a, c)


def test_trajectories_begin_where_they_are_told_to(node_run: NodeRun, trained: Path):
    done = node_run(
        "sample", str(trained / "spiral"), "--start", "1.5,0", "--start", "-1,0.5", "--until", "9", "--times", "10",
        "--out", "paths.csv",
    )  # fmt: skip
    assert done.code == 0
    with open("paths.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["trajectory", "t", "x", "y"]
    assert len(rows) == 20
    assert [float(rows[10][key]) for key in rows[0]] == [1, 0, -1, 0.5]
    assert float(rows[-1]["t"]) == 9
    assert Path("paths.png").read_bytes().startswith(PNG)


def test_paths_of_a_process_are_drawn_from_nothing(node_run: NodeRun):
    pytest.importorskip("torchsde", reason="torchsde is not installed: pip install 'node-runner[sde]'")
    small = ("dataset.noise=0", "dataset.times=8", "dataset.train=8", "dataset.val=4", "dataset.test=4")
    done = node_run(
        "dataset=ornstein_uhlenbeck", "model=neural_sde", "debug=fast", "device=cpu", "logger=[]",
        "hydra.run.dir=process", *small,
    )  # fmt: skip
    assert done.code == 0, done.err
    for seed in ("1", "1", "2"):
        assert node_run("sample", "process", "--count", "3", "--seed", seed, "--out", f"{seed}.npz").code == 0
    with np.load("1.npz") as one, np.load("2.npz") as two:
        assert one["ys"].shape == (3, 200, 1)
        assert one["ts"][-1] == pytest.approx(3.0)
        assert not np.array_equal(one["ys"], two["ys"])
    refused = node_run("sample", "process", "--start", "1.0")
    assert refused.code == 2
    assert "--start is for trajectories" in refused.last


def test_without_a_start_trajectories_begin_as_in_the_test_part(node_run: NodeRun, spiral: Path):
    assert node_run("sample", str(spiral), "--count", "3").code == 0
    with np.load(spiral / "samples.npz") as drawn:
        assert drawn["ys"].shape == (3, 200, 2)
        assert drawn["ts"][-1] == pytest.approx(6.0)
    assert (spiral / "samples.png").exists()


def test_series_are_continued_and_come_with_draws_of_the_posterior(node_run: NodeRun, series: Path):
    assert node_run("sample", str(series), "--count", "3").code == 0
    with np.load(series / "samples.npz") as drawn:
        assert drawn["ys"].shape == drawn["observed"].shape == (3, len(drawn["ts"]), 2)
        assert drawn["draws"].shape == (8, *drawn["ys"].shape)
        assert np.isfinite(drawn["draws"]).all()
        assert np.isfinite(drawn["observed"]).sum() == 3 * 2 * 8
    assert node_run("sample", str(series), "--count", "3", "--out", "series.csv").code == 0
    with open("series.csv", newline="") as file:
        assert list(next(csv.DictReader(file))) == ["series", "t", "x", "y"]
    refused = node_run("sample", str(series), "--until", "9")
    assert "this run learned series" in refused.line


@pytest.mark.parametrize(
    ("run", "arguments", "said"),
    [
        ("classes", [], "model=node learned classes, so there is nothing to draw"),
        ("spiral", ["--start", "1"], "--start 1: expected 2 numbers separated by commas: x,y"),
        ("spiral", ["--start", "a,b"], "--start a,b: expected 2 numbers"),
        ("spiral", ["--until", "-1"], "--until -1: expected a time above 0"),
        ("flow", ["--start", "1,2"], "--start and --until are for trajectories"),
        ("flow", ["--out", "points.json"], "--out points.json: expected a file ending in .npz or .csv"),
        ("flow", ["--out", "/proc/x/points.npz"], "cannot read or write /proc"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    node_run: NodeRun, here: Path, trained: Path, run: str, arguments: list[str], said: str
):
    done = node_run("sample", str(trained / run), *arguments)
    assert done.code == 2
    assert said in done.line
    assert list(here.iterdir()) == []


def test_pictures_of_any_shape_can_be_drawn():
    rng = np.random.default_rng(0)
    assert draw_points(rng.normal(size=(30, 1)), rng.normal(size=30), ["x"]).axes
    assert draw_points(rng.normal(size=(30, 5)), rng.normal(size=30), list("abcde")).axes
    assert draw_images(rng.uniform(0, 16, size=(7, 64)), (1, 8, 8), 17).axes
    assert len(draw_trajectories(np.linspace(0, 1, 9), rng.normal(size=(2, 9, 3)), list("xyz"), 0.5).axes) == 1
