"""`node-run ensemble`: numbers with known values, and the command on small runs."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from node_runner.cli.ensemble import averaged, forecasts
from node_runner.cli.ensemble.averaged import Votes
from node_runner.cli.ensemble.figures import draw_forecast, draw_votes
from node_runner.cli.ensemble.forecasts import Forecast
from node_runner.config import compose_run
from node_runner.runs.run import run as train
from node_runner.views import DataSpec, View
from tests.cli.conftest import MOONS, SHORT, SPIRAL, NodeRun


PATHS = (*SHORT, "dataset=turns", "dataset.train=8", "dataset.val=4", "dataset.test=6", "model=rnn")
SERIES = (
    *SHORT, "dataset=irregular_oscillations", "dataset.train=8", "dataset.val=4", "dataset.test=6", "model=rnn",
)  # fmt: skip
PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders with finished runs of three seeds: spiral, classes; of two: paths, series."""
    root = tmp_path_factory.mktemp("seeds")
    kinds = {"spiral": (SPIRAL, 3), "classes": ((*MOONS, "model=node"), 3), "paths": (PATHS, 2), "series": (SERIES, 2)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("node_runner.runs.run.draw", lambda *_: iter(()))
        for name, (overrides, count) in kinds.items():
            for seed in range(count):
                train(compose_run([*overrides, f"seed={seed}"]), root / name / str(seed), live=False)
    return root


def exchangeable(members: int, spread: float = 1.0) -> Forecast:
    """Truth and members drawn alike, the members' deviations scaled by `spread`."""
    rng = np.random.default_rng(0)
    shape = (40, 50, 10)
    centre = rng.normal(size=shape)
    draws = centre + spread * rng.normal(size=(members, *shape))
    return Forecast(np.arange(50.0), centre + rng.normal(size=shape), draws, 20.0)


def test_series_with_times_of_their_own_are_scored_where_they_are_known():
    ts = np.array([[0, 1, 2.0], [0, 1.5, 2]])
    true = np.array([[0, 1, np.nan], [0, 3, 4]])[..., None]
    members = np.stack([np.full((2, 3, 1), 1.0), np.full((2, 3, 1), 3.0)])
    found = forecasts._together(Forecast(ts, true, members, 1.0))
    assert found.ts.tolist() == [0, 1, 1.5, 2]
    assert np.array_equal(found.true[..., 0], [[0, 1, np.nan, np.nan], [0, np.nan, 3, 4]], equal_nan=True)
    assert np.array_equal(np.isnan(found.members[0]), np.isnan(found.true))
    assert forecasts.score(found, 0.9)["rmse_mean"] == pytest.approx(math.sqrt((4 + 1 + 4 + 1 + 4) / 5))
    later = found.beyond()
    assert later is not None and later.ts.tolist() == [1.5, 2]
    assert forecasts.over_time(found)["rmse_mean"].tolist() == [2, 1, 1, 2]
    assert forecasts.over_time(found)["spread"].tolist() == pytest.approx([math.sqrt(2)] * 4)
    spec = DataSpec("file", View.series, (1,), torch.zeros(1), torch.ones(1), labels=("x",))
    figure = draw_forecast(("test", found), {"test": [0.0] * len(forecasts.LEVELS)}, spec, 0.9)
    band = figure.axes[0].lines[0]  # of the worst or the median series, at its own times
    assert np.isfinite(band.get_ydata()).all() and len(band.get_xdata()) in (2, 3)


@pytest.mark.parametrize("members", [2, 5, 20])
@pytest.mark.parametrize("level", [0.5, 0.9])
def test_bands_hold_what_they_promise_where_the_truth_is_like_a_member(members: int, level: float):
    scores = forecasts.score(exchangeable(members), level)
    # 20,000 states: five standard errors.
    assert scores["coverage"] == pytest.approx(level, abs=5 * math.sqrt(level * (1 - level) / 20_000))
    assert scores["spread_over_error"] == pytest.approx(1.0, abs=0.03)
    assert scores["rmse_mean"] == pytest.approx(math.sqrt(1 + 1 / members), rel=0.03)


def test_an_ensemble_that_is_too_sure_is_found_out():
    scores = forecasts.score(exchangeable(5, spread=0.2), 0.9)
    assert scores["spread_over_error"] < 0.3 and scores["coverage"] < 0.5


def test_states_that_are_not_known_do_not_count():
    whole = exchangeable(4)
    true = whole.true.copy()
    true[:, 21:] = np.nan
    cut = Forecast(whole.ts, true, whole.members, whole.horizon)
    first = Forecast(whole.ts[:21], whole.true[:, :21], whole.members[:, :, :21], whole.horizon)
    assert forecasts.score(cut, 0.9) == forecasts.score(first, 0.9)
    assert cut.beyond() is None
    later = whole.beyond()
    assert later is not None and later.ts[0] == 21
    assert np.isnan(forecasts.over_time(cut)["rmse_mean"]).sum() == 29


def test_calibration_error_of_known_confidences():
    shares = np.array([[0.9, 0.1]] * 10 + [[0.3, 0.7]] * 10)
    labels = np.array([0] * 9 + [1] + [1] * 4 + [0] * 6)
    assert averaged.calibration_error(shares, labels) == pytest.approx((0.0 + 0.3) / 2)


def test_the_ensemble_averages_probabilities():
    one, other = np.array([[0.9, 0.1], [0.4, 0.6]]), np.array([[0.5, 0.5], [0.8, 0.2]])
    scores = averaged.score(Votes(np.stack((one, other)), np.array([0, 0])))
    assert scores["nll"] == pytest.approx(-(math.log(0.7) + math.log(0.6)) / 2)
    assert scores["accuracy"] == 1.0 and scores["accuracy_members"] == [0.5, 1.0]


def test_trajectories_are_forecast_beyond_their_data(node_run: NodeRun, seeds: Path):
    done = node_run("ensemble", str(seeds / "spiral"), "--until", "20", "--out", "new/together.json")
    assert done.code == 0, done.err
    assert [line.split("  ")[0] for line in done.out.splitlines()[1:4]] == ["test", "test_long", "test_long, t > 6"]
    found = json.loads(Path("new/together.json").read_text())
    assert found["seeds"] == [0, 1, 2]
    assert found["over_time"]["test_long"]["t"][-1] == pytest.approx(20)
    assert found["over_time"]["test_long"]["rmse_mean"][-1] is None
    # A member alone is as good as its run says.
    for seed, rmse in enumerate(found["parts"]["test"]["rmse_members"]):
        metrics = json.loads((seeds / "spiral" / str(seed) / "result.json").read_text())["metrics"]
        assert rmse**2 == pytest.approx(metrics["test/mse"], rel=1e-5)
    assert Path("new/together.png").read_bytes().startswith(PNG)


def test_series_are_forecast_after_what_is_seen_of_them(node_run: NodeRun, seeds: Path):
    done = node_run("ensemble", str(seeds / "series"), "--out", "together.json")
    assert done.code == 0, done.err
    parts = json.loads(Path("together.json").read_text())["parts"]
    later = next(scores for name, scores in parts.items() if name.startswith("test, t > "))
    for seed in (0, 1):
        metrics = json.loads((seeds / "series" / str(seed) / "result.json").read_text())["metrics"]
        assert parts["test"]["rmse_members"][seed] ** 2 == pytest.approx(metrics["test/mse"], rel=1e-5)
        assert later["rmse_members"][seed] == pytest.approx(metrics["test/extrapolation_rmse"], rel=1e-5)


@pytest.mark.parametrize("name", ["classes", "paths"])
def test_classes_are_voted_on(node_run: NodeRun, seeds: Path, name: str):
    done = node_run("ensemble", str(seeds / name), "--out", "votes.json")
    assert done.code == 0, done.err
    scores = json.loads(Path("votes.json").read_text())["parts"]["test"]
    for seed, (accuracy, nll) in enumerate(zip(scores["accuracy_members"], scores["nll_members"], strict=True)):
        metrics = json.loads((seeds / name / str(seed) / "result.json").read_text())["metrics"]
        assert accuracy == pytest.approx(metrics["test/accuracy"])
        assert nll == pytest.approx(metrics["test/loss"], rel=1e-5)
    # The logarithm is concave: the mean of probabilities is never worse than the mean of the members.
    assert scores["nll"] <= np.mean(scores["nll_members"]) + 1e-12
    assert Path("votes.png").read_bytes().startswith(PNG)


def test_figures_lie_beside_the_runs(node_run: NodeRun, spiral: Path, seeds: Path):
    (spiral.parent / "other").symlink_to(seeds / "spiral" / "1")
    assert node_run("ensemble", str(spiral), str(seeds / "spiral" / "1")).code == 0
    assert node_run("ensemble", "outputs/spiral", "outputs/spiral").line.endswith("train others with -m seed=0,1,2,3,4")


@pytest.mark.parametrize(
    ("runs", "options", "said"),
    [
        (["spiral/0"], [], "one run is no ensemble; train others with -m seed=0,1,2,3,4"),
        (["spiral", "classes"], [], "these runs have dataset=spiral and dataset=two_moons"),
        (["spiral"], ["--band", "90"], "--band 90: expected a probability between 0 and 1"),
        (["spiral"], ["--out", "together.txt"], "--out together.txt: expected a file ending in .json"),
        (["spiral"], ["--checkpoint", "first"], "--checkpoint first: expected best or last"),
        (["classes"], ["--until", "3"], "--until is for trajectories, and these runs learned labelled"),
    ],
)
def test_what_is_no_ensemble_is_refused(
    node_run: NodeRun, here: Path, seeds: Path, runs: list[str], options: list[str], said: str
):
    done = node_run("ensemble", *(str(seeds / run) for run in runs), *options)
    assert done.code == 2
    assert said in done.line
    assert list(here.iterdir()) == []


def test_densities_copies_and_unfinished_runs_are_refused(node_run: NodeRun, trained: Path, spiral: Path, seeds: Path):
    flow = Path(trained / "flow")
    assert "one run is no ensemble" in node_run("ensemble", str(flow)).line
    assert "has the same seed" in node_run("ensemble", str(spiral), str(trained / "spiral")).line
    (spiral / "result.json").unlink()
    assert "the run is not ended" in node_run("ensemble", str(spiral), str(seeds / "spiral" / "1")).line


@pytest.mark.parametrize(("rows", "axes"), [(1, 1), (3, 5)])
def test_forecasts_of_any_shape_can_be_drawn(rows: int, axes: int):
    rng = np.random.default_rng(0)
    forecast = Forecast(
        np.linspace(0, 2, 9), rng.normal(size=(rows, 9, axes)), rng.normal(size=(3, rows, 9, axes)), 1.0
    )
    curves = {"test": [0.5] * len(forecasts.LEVELS)}
    spec = DataSpec("data", View.trajectories, (axes,), torch.zeros(axes), torch.ones(axes), clock="hours")
    figure = draw_forecast(("test", forecast), curves, spec, 0.9)
    assert {each.get_xlabel() for each in figure.axes} - {""} == {"hours", "level of the band"}
    shares = rng.dirichlet([1, 1, 1], size=(2, 7))
    assert draw_votes(Votes(shares, rng.integers(0, 3, size=7)), "data").axes
