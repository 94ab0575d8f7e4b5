"""`node-run sample`."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from node_runner.cli.sample.animation import animate_images
from node_runner.cli.sample.figures import draw_images, draw_points, draw_trajectories
from node_runner.cli.saved import open_saved
from node_runner.config import compose_run
from node_runner.runs.run import run as train
from node_runner.tasks.series import series_batch
from tests.cli.conftest import SHORT, NodeRun


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


def frames(file: str) -> int:
    with Image.open(file) as gif:
        return int(gif.n_frames)


@pytest.mark.parametrize(("run", "shown"), [("flow", ["--count", "20"]), ("spiral", ["--times", "9", "--count", "2"])])
def test_what_is_made_may_move(
    node_run: NodeRun, trained: Path, monkeypatch: pytest.MonkeyPatch, run: str, shown: list[str]
):
    monkeypatch.setattr("node_runner.cli.sample.animation.FRAMES", 4)
    monkeypatch.setattr("node_runner.cli.sample.animation.PER_SECOND", 2)
    done = node_run("sample", str(trained / run), *shown, "--animate", "--out", "moving.npz")
    assert done.code == 0, done.err
    assert done.last == "wrote moving.npz, moving.png, moving.gif"
    # Equal frames that follow one another are kept as one, shown for longer.
    assert frames("moving.gif") >= 4


def test_images_may_appear_out_of_noise(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("node_runner.cli.sample.animation.PER_SECOND", 1)
    paths = np.random.default_rng(0).uniform(0, 17, size=(3, 5, 64))
    animate_images(paths, (1, 8, 8), 17, "digits", Path("new/images.gif"))
    assert frames("new/images.gif") >= 3


@pytest.fixture(scope="module")
def latent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a latent ODE."""
    root = tmp_path_factory.mktemp("latent") / "run"
    data = ("dataset=irregular_oscillations", "dataset.train=8", "dataset.val=4", "dataset.test=6")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("node_runner.runs.run.draw", lambda *_: iter(()))
        train(compose_run([*SHORT, *data, "model=latent", "engine=torchdiffeq"]), root, live=False)
    return root


def test_series_lie_between_others(node_run: NodeRun, latent: Path):
    done = node_run("sample", str(latent), "--interpolate", "--count", "2", "--out", "b.npz")
    assert done.code == 0, done.err
    with np.load("b.npz") as file:
        paths, ts = file["paths"], file["ts"]
    assert paths.shape[:3] == (9, 2, len(ts))
    # The ends are the model's own reconstructions of test series.
    built = open_saved(latent, [], "best").experiment
    batch = series_batch(built.splits.test, torch.arange(len(built.splits.test)))
    with torch.no_grad(), built.tolerances.evaluation():
        own = built.model(batch.ts, batch.values, batch.seen).value.transpose(0, 1).double().numpy()
    for path in paths[[0, -1]].reshape(4, *paths.shape[2:]):
        assert np.abs(own - path).max(axis=(1, 2)).min() < 1e-4
    assert "--until are for trajectories" in node_run("sample", str(latent), "--start", "1").line


def test_interpolations_begin_and_end_at_test_points(node_run: NodeRun, trained: Path):
    sharp = ["solver=dopri5", "tolerance=strict"]
    done = node_run("sample", str(trained / "flow"), *sharp, "--interpolate", "--count", "3", "--out", "between.npz")
    assert done.code == 0, done.err
    with np.load("between.npz") as file:
        paths = file["paths"]
    assert paths.shape == (101, 3, 2)
    test = open_saved(trained / "flow", [], "best").experiment.splits.test.x.double().numpy()
    ends = paths[[0, -1]].reshape(-1, 2)
    distance = np.linalg.norm(ends[:, None] - test, axis=2).min(axis=1)
    assert distance.max() < 1e-4 and len(np.unique(ends.round(4), axis=0)) == 6
    assert Path("between.png").read_bytes().startswith(PNG)
    node_run("sample", str(trained / "flow"), "--interpolate", "--count", "2", "--out", "between.csv")
    with open("between.csv", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert list(rows[0]) == ["pair", "share", "x", "y"] and len(rows) == 202
    assert (float(rows[101]["pair"]), float(rows[101]["share"])) == (1, 0)


@pytest.mark.parametrize(
    ("run", "arguments", "said"),
    [
        (
            "spiral",
            ["--interpolate"],
            "through the base of a flow or a latent space, and model=node has none",
        ),
        ("flow", ["--interpolate", "--animate"], "--animate and --interpolate make pictures of different things"),
        ("flow", ["--interpolate", "--count", "11"], "--count 11: the test part holds 20, which makes 10 pairs"),
        ("classes", [], "model=node learned classes, so there is nothing to draw"),
        ("spiral", ["--start", "1"], "--start 1: expected 2 numbers separated by commas: x,y"),
        ("spiral", ["--start", "nan,1"], "--start nan,1: expected 2 numbers separated by commas: x,y"),
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


def test_the_lowest_grey_level_is_black_and_the_highest_white():
    # A flow has level k of 17 as the numbers from k to k + 1.
    drawn = draw_images(np.array([[0.0, 0.99, 8.5, 16.2, 17.0, np.nan]]), (1, 2, 3), 17, "digits x cnf")
    shades = np.ma.filled(drawn.axes[0].images[0].get_array(), np.nan)[1:-1, 1:-1]
    np.testing.assert_array_equal(shades.ravel(), [0, 0, 0.5, 1, 1, np.nan])


@pytest.mark.parametrize(
    ("option", "value"),
    [("--count", "10000001"), ("--count", "99999999999999999999"), ("--times", "1000001"), ("--seed", "-1"),
     ("--seed", "9223372036854775808")],
)  # fmt: skip
def test_what_no_machine_draws_is_refused_at_once(node_run: NodeRun, here: Path, option: str, value: str):
    done = node_run("sample", "run", option, value)
    assert done.code == 2
    assert done.line.startswith(f"node-run: Invalid value for '{option}': Input should be ")
    assert list(here.iterdir()) == []


def test_pictures_of_any_shape_can_be_drawn():
    rng = np.random.default_rng(0)
    points = draw_points(rng.normal(size=(30, 1)), rng.normal(size=30), ["x"], "rings x cnf")
    assert points.get_suptitle() == "rings x cnf: 30 samples"
    points = draw_points(rng.normal(size=(30, 5)), rng.normal(size=30), list("abcde"), "file x cnf")
    assert points.get_suptitle() == "file x cnf: 30 samples, the first two axes"
    assert draw_images(rng.uniform(0, 16, size=(7, 64)), (1, 8, 8), 17, "digits x cnf").axes
    paths = draw_trajectories(np.linspace(0, 1, 9), rng.normal(size=(2, 9, 3)), list("xyz"), "s", 0.5, "lorenz x node")
    assert paths.axes[0].get_xlabel() == "s"
    assert len(paths.axes) == 1 and paths.axes[0].get_legend() is None  # below, where it hides nothing
    assert paths.get_suptitle() == "lorenz x node: 2 predicted trajectories"
