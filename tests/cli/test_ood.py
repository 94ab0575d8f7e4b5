"""`node-run ood`: areas with known values, foreign points, and the command on small runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import norm

from node_runner.cli.ood.command import Scores
from node_runner.cli.ood.figure import draw_scores
from node_runner.cli.ood.foreign import foreign, resized
from node_runner.cli.ood.foreign_files import from_files
from node_runner.cli.ood.roc import area, false_alarms, roc
from node_runner.cli.saved import open_saved
from node_runner.config import compose_run
from node_runner.errors import DataError
from node_runner.runs.run import run as train
from node_runner.runs.saved import Saved
from node_runner.views import DataSpec, View
from tests.cli.conftest import SHORT, NodeRun


DIGITS = (
    *SHORT, "dataset=digits", "dataset.train=40", "dataset.val=20", "dataset.test=30", "model=flow_matching",
    "engine=torchdiffeq", "solver.step_size=0.5",
)  # fmt: skip


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a flow on images."""
    root = tmp_path_factory.mktemp("digits") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("node_runner.runs.run.draw", lambda *_: iter(()))
        train(compose_run(DIGITS), root, live=False)
    return root


def test_the_area_is_that_of_two_normal_distributions():
    rng = np.random.default_rng(0)
    own, others = rng.normal(size=20_000), 1.5 + rng.normal(size=20_000)
    assert area(own, others) == pytest.approx(norm.cdf(1.5 / np.sqrt(2)), abs=0.006)
    assert area(others, own) == pytest.approx(1 - area(own, others))
    # 95 % of the others lie above 1.5 - 1.645.
    assert false_alarms(own, others) == pytest.approx(norm.sf(1.5 - norm.ppf(0.95)), abs=0.01)


def test_ties_count_half_and_infinite_scores_count():
    assert area(np.zeros(3), np.zeros(5)) == 0.5
    assert area(np.array([0.0, 1.0]), np.array([1.0, np.inf])) == pytest.approx(7 / 8)
    alarms, caught = roc(np.array([0.0, 1.0]), np.array([2.0, np.inf]))
    assert (alarms[0], caught[0], alarms[-1], caught[-1]) == (0, 0, 1, 1)
    assert false_alarms(np.array([0.0, 1.0]), np.array([2.0, np.inf])) == 0


def test_points_that_are_too_likely_are_atypical():
    own, simple = Scores(np.array([-11.0, -10.0, -9.0]), -10.0), Scores(np.array([-2.0, -3.0]), -10.0)
    assert area(own.surprise, simple.surprise) == 0.0
    assert area(own.atypicality, simple.atypicality) == 1.0


def test_images_are_averaged_to_another_size():
    ours = DataSpec("ours", View.points, (4,), torch.zeros(()), torch.ones(()), levels=17, image=(1, 2, 2))
    theirs = DataSpec("theirs", View.points, (16,), torch.zeros(()), torch.ones(()), levels=256, image=(1, 4, 4))
    image = torch.zeros(1, 4, 4, dtype=torch.uint8)
    image[0, :2, :2] = 255
    image[0, 2:, 2] = 255
    small = resized(image.flatten(1), theirs, ours)
    assert small.dtype == torch.uint8 and small.tolist() == [[16, 0, 0, 8]]
    assert resized(image.flatten(1), theirs, theirs) is not None


def test_foreign_points_keep_to_the_range_of_the_data(digits: Path):
    saved: Saved = open_saved(digits, [], "best")
    test = saved.experiment.splits.test.x[:20].cpu()
    noise, _ = foreign(saved, "uniform", 500, 0)
    assert noise.min() == 0 and noise.max() == 16 and noise.shape == (500, 64)
    inverted, _ = foreign(saved, "inverted", 20, 0)
    assert torch.equal(inverted + test, torch.full_like(test, 16))
    permuted, _ = foreign(saved, "permuted", 20, 0)
    assert torch.equal(permuted.sort(dim=1).values, test.sort(dim=1).values) and not torch.equal(permuted, test)
    again, _ = foreign(saved, "permuted", 20, 0)
    assert torch.equal(again, permuted)


def test_images_of_one_s_own_are_averaged_to_the_size_and_grey_levels_of_the_run(digits: Path, tmp_path: Path):
    spec = open_saved(digits, [], "best").experiment.spec
    bright = np.zeros((3, 16, 16), dtype=np.uint8)
    bright[1, :2, :2] = 255
    bright[1, 2, :2] = 255
    np.savez(tmp_path / "own.npz", images=bright)
    points, words = from_files(str(tmp_path / "own.npz"), spec, 2)
    assert points.shape == (2, 64) and points.dtype == torch.uint8
    assert points[1].nonzero().flatten().tolist() == [0, 8] and points[1, :9:8].tolist() == [16, 8]
    assert words.endswith("own.npz, 16 x 16 averaged to 8 x 8")
    np.save(tmp_path / "own.npy", bright / 255)
    assert torch.equal(from_files(str(tmp_path / "own.npy"), spec, 2)[0], points)
    for i in (0, 1):
        (tmp_path / "folder").mkdir(exist_ok=True)
        Image.fromarray(bright[i]).save(tmp_path / "folder" / f"{i}.png")
    assert torch.equal(from_files(str(tmp_path / "folder"), spec, 9)[0], points)
    assert torch.equal(from_files(str(tmp_path / "folder" / "1.png"), spec, 9)[0], points[1:])


def test_rows_of_one_s_own_table_are_points_where_nothing_is_missing(tmp_path: Path):
    spec = DataSpec("file", View.points, (2,), torch.zeros(2), torch.ones(2), labels=("x", "y"))
    table = tmp_path / "own.csv"
    table.write_text("note,y,x\na,2,1\nb,,3\nc,6,5\n")
    points, words = from_files(str(table), spec, 9)
    assert points.tolist() == [[1, 2], [5, 6]]
    assert words == f"rows of {table}, 1 with missing values left out"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.npy", np.full((2, 4, 4), 3.0), "expected floats from 0 to 1, got 3 to 3"),
        ("a.npy", np.zeros((2, 4)), "expected images (N, H, W) or (N, C, H, W)"),
        ("a.npy", np.zeros((2, 3, 4, 4)), "expected images of 1 channels, got 3"),
        ("a.png", b"none", "is not an image that can be read"),
        ("a.npz", b"none", "is not an array that can be read"),
        ("a.csv", b"x\n1\n", "expected images, in a folder or a file ending in .png"),
        ("folder/", None, "holds no image"),
        ("nowhere/", None, "no such file or folder"),
    ],
)
def test_files_that_hold_no_images_are_refused(digits: Path, tmp_path: Path, name: str, content: Any, said: str):
    path = tmp_path / name
    if name == "folder/":
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)
    with pytest.raises(DataError) as caught:
        foreign(open_saved(digits, [], "best"), f"{tmp_path}/{name}", 10, 0)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_images_are_scored_against_noise(node_run: NodeRun, digits: Path):
    asked = ("ood", str(digits), "--against", "uniform", "--against", "inverted", "--count", "20", "--out", "o.json")
    done = node_run(*asked)
    assert done.code == 0, done.err
    found = json.loads(Path("o.json").read_text())
    assert set(found["against"]) == {"uniform", "inverted"}
    assert found["test"]["points"] == 20
    # Background pixels are nearly always black: inverted digits cannot be likely.
    assert found["against"]["inverted"]["auroc"] > 0.9
    assert Path("o.png").read_bytes().startswith(b"\x89PNG")
    first = Path("o.json").read_bytes()
    node_run(*asked)
    assert Path("o.json").read_bytes() == first


def test_points_in_the_plane_are_scored_against_another_density(node_run: NodeRun, trained: Path):
    done = node_run("ood", str(trained / "flow"), "--against", "rings", "--count", "20", "--out", "new/moons.json")
    assert done.code == 0, done.err
    assert done.out.splitlines()[2].split()[:2] == ["rings", "20"]
    assert Path("new/moons.png").exists()


@pytest.mark.parametrize(
    ("run", "arguments", "said"),
    [
        ("spiral", [], "model=node has no log-density; use a run of model=cnf or flow_matching"),
        ("flow", ["--against", "ring"], "--against ring: no such data; did you mean 'rings'?"),
        ("flow", ["--against", "two_moons"], "--against two_moons: the run was trained on it"),
        ("flow", ["--against", "digits"], "its points have shape (64,), and those of dataset=two_moons (2,)"),
        ("flow", ["--against", "inverted"], "--against inverted is for images"),
        ("flow", ["--against", "file"], "--against file: "),
        ("flow", ["--out", "a.png"], "--out a.png: expected a file ending in .json"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    node_run: NodeRun, here: Path, trained: Path, run: str, arguments: list[str], said: str
):
    done = node_run("ood", str(trained / run), *arguments)
    assert done.code == 2
    assert said in done.line
    assert list(here.iterdir()) == []


def test_densities_that_vanish_can_be_drawn():
    own = Scores(np.array([-3.0, -2.0, -2.5]), -2.5)
    assert draw_scores(own, {"nowhere": Scores(np.array([-np.inf, -np.inf]), -2.5)}, "data").axes
