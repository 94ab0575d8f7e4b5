"""Figures of small untrained models: each is drawn, shows something, and says what it shows."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib import image
from matplotlib.figure import Figure
from torch import Tensor, nn

from node_runner.assemble import Experiment, assemble
from node_runner.errors import SolveFailed
from node_runner.learning import ModelOutput
from node_runner.reporting.figures import (
    FIGURES,
    decision,
    density,
    draw,
    error_over_time,
    events,
    interpolation,
    phase_portrait,
    space,
)
from node_runner.reporting.figures.scene import Prediction, Scene, host, plane
from node_runner.reporting.figures.series import Continued, Lines, chosen
from node_runner.reporting.figures.style import figure_of, sheet, style
from node_runner.views import DataSpec, Points, Series, Splits, Trajectories, View
from tests.runs import make_run


TRAJECTORIES = ["trajectories", "phase_portrait", "error_over_time"]
PAIRS = {
    ("spiral", "node"): TRAJECTORIES,
    ("oscillator", "augmented"): TRAJECTORIES,
    ("pendulum", "node"): [*TRAJECTORIES, "energy"],
    ("diffusion", "graph"): [*TRAJECTORIES, "energy", "graph"],
    ("bouncing_ball", "event"): [*TRAJECTORIES, "events"],
    ("lorenz", "node"): ["trajectories", "phase_portrait", "space", "error_over_time"],
    ("lotka-volterra", "cnf"): ["density", "flow"],
    ("eight_gaussians", "cnf"): ["density", "flow"],
    ("two_moons", "node"): ["confusion", "decision", "features"],
    ("digits", "node"): ["confusion", "mistakes", "features"],
    ("digits", "cnf"): ["samples", "flow"],
    ("ornstein_uhlenbeck", "latent"): ["forecasts", "process"],
    ("irregular_spirals", "latent"): ["series", "plane", "latent", "interpolation"],
    ("irregular_oscillations", "rnn"): ["series", "plane"],
    ("turns", "cde"): ["paths", "confusion"],
}
TIMED = (View.trajectories, View.series, View.paths, View.processes)
IMAGES = {("digits", "mistakes"), ("digits", "samples"), ("digits", "flow")}


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer points of each map: the tests look at other things."""
    for module in (density, decision, phase_portrait):
        monkeypatch.setattr(module, "SIZE", 15)
    monkeypatch.setattr(phase_portrait, "STREAMS", 0.15)
    monkeypatch.setattr("node_runner.reporting.figures.scene.POINTS", 200)


def experiment(dataset: str, model: str, **settings: Any) -> Experiment:
    built = assemble(make_run(dataset=dataset, model=model, **settings))
    built.model.eval()
    return built


def draw_all(built: Experiment, metrics: dict[str, float] | None = None) -> dict[str, Figure]:
    return dict(draw(built.model, built.spec, built.splits, built.dataset, metrics))


def pixels(figure: Figure) -> np.ndarray:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=40)
    buffer.seek(0)
    return image.imread(buffer)[..., :3]


def heading(figure: Figure) -> str:
    return figure.get_suptitle()


@pytest.mark.slow
@pytest.mark.parametrize(("dataset", "model"), PAIRS, ids=["-".join(pair) for pair in PAIRS])
def test_every_pair_gets_figures_that_show_something_and_name_their_axes(dataset: str, model: str) -> None:
    built = experiment(dataset, model)
    metrics, spec = {"test/nll": 2.5, "test/bits_per_dim": 3.25}, replace(built.spec, clock="decade")
    figures = dict(draw(built.model, spec, built.splits, built.dataset, metrics))
    assert list(figures) == PAIRS[dataset, model]
    labels = {axes.get_xlabel() for figure in figures.values() for axes in figure.axes}
    assert "time" not in labels and ("decade" in labels) is (spec.view in TIMED)
    for name, figure in figures.items():
        shown = pixels(figure)
        assert shown.std() > 0.02, f"{name} is blank"
        assert heading(figure).startswith(dataset), heading(figure)
        if (dataset, name) not in IMAGES:
            assert any(axes.get_xlabel() for axes in figure.axes), f"{name} has no label below"
            assert any(axes.get_ylabel() for axes in figure.axes), f"{name} has no label at the side"


OWN_TIMES = {
    "latent": ["series", "latent", "interpolation"],
    "rnn": ["series"],
    "neural_sde": ["forecasts", "process"],
    "cde": ["paths", "confusion"],
}


@pytest.mark.parametrize(("model", "names"), OWN_TIMES.items(), ids=list(OWN_TIMES))
def test_series_of_three_channels_with_times_of_their_own_have_figures(
    tmp_path: Path, model: str, names: list[str]
) -> None:
    rows = [
        f"s{i},{k + 0.1 * i * (k > 0)},{i},{k},{'' if (i + k) % 3 else 1},c{i % 2}" for i in range(9) for k in range(5)
    ]
    path = tmp_path / "own.csv"
    path.write_text("\n".join(["id,t,x,y,z,kind", *rows]) + "\n", encoding="utf-8")
    settings: dict[str, Any] = {"label": "kind"} if model == "cde" else {"until": 3.0}
    settings |= {"path": str(path), "values": ["x", "y", "z"]}
    more = {"solver": "euler_maruyama", "engine": "torchsde"} if model == "neural_sde" else {}
    built = experiment("file", model, **more, **{f"dataset__{key}": value for key, value in settings.items()})
    figures = draw_all(built)
    assert list(figures) == names
    for name, figure in figures.items():
        assert pixels(figure).std() > 0.02, f"{name} is blank"
    if model == "latent":
        drawn = {line.get_label(): line for line in figures["series"].axes[0].lines}
        # A latent ODE knows all times; of the truth only what was observed is known.
        assert len(drawn["predicted"].get_xdata()) > 100 and drawn["observed"].get_linestyle() == "None"
    if model == "cde":
        upper = np.array(figures["paths"].axes).reshape(4, 4)
        assert [axes.get_ylabel() for axes in upper[:, 0]] == ["x", "y", "z", "probability"]
        # What is drawn are the values of the series at its own times.
        line = upper[1, 0].lines[0]
        assert line.get_ydata().tolist() == [0, 1, 2, 3, 4]
        assert (np.diff(line.get_xdata())[1:] == pytest.approx(1)) and line.get_xdata()[0] == 0


def test_the_title_of_the_energy_gives_the_drift_that_was_measured_or_else_measures_it() -> None:
    built = experiment("mass_spring", "node")
    assert "drift 0.125 on test_long" in heading(draw_all(built, {"test_long/energy_drift": 0.125})["energy"])
    measured = built.task.evaluate(built.model, built.splits.extra["test_long"], 100)["energy_drift"]
    assert f"drift {figure_of(measured)} on test_long" in heading(draw_all(built)["energy"])


def test_what_is_conserved_and_what_time_is_are_called_what_they_are() -> None:
    heat = draw_all(experiment("diffusion", "graph"))["energy"]
    assert heat.axes[0].get_ylabel() == "heat" and "heat over time" in heading(heat)
    assert experiment("robertson", "node").spec.clock == "decade, log10(1 + t / t0)"


def test_events_are_paired_by_their_rank_and_one_that_is_missed_has_no_time() -> None:
    states = np.zeros((2, 3, 1))
    jumps, found = np.array([[0.5, 1.5], [0.7, -1.0]]), np.array([[0.6, -1.0, -1.0], [0.7, 0.9, 1.1]])
    true, learned = events.pairs(Prediction(np.arange(3.0), states, states, jumps, found))
    np.testing.assert_array_equal(true, [0.5, 1.5, 0.7])
    np.testing.assert_array_equal(learned, [0.6, np.nan, 0.7])


def test_every_view_has_figures() -> None:
    assert set(FIGURES) == set(View)


def test_the_reader_s_own_settings_of_matplotlib_are_left_alone() -> None:
    built = experiment("two_moons", "node")
    with mpl.rc_context({"font.size": 17.0}):
        before = dict(mpl.rcParams)
        next(draw(built.model, built.spec, built.splits, built.dataset))
        assert dict(mpl.rcParams) == before


def test_float32_models_take_float64_data_and_the_other_way_round() -> None:
    for precision, other in (("float32", torch.float64), ("float64", torch.float32)):
        built = experiment("spiral", "node", dataset__long=0)
        built.model.to(getattr(torch, precision))
        scene = Scene(built.model, built.spec, _as(built.splits, other), built.dataset, {})
        assert np.isfinite(scene.predictions["test"].learned).all()
        assert phase_portrait.learned_field(scene, plane((-1, 1), (-1, 1), 3)) is not None


def _as(splits: Splits[Any], dtype: torch.dtype) -> Splits[Any]:
    return splits.map(lambda part: part.to(dtype))


@pytest.mark.gpu
@pytest.mark.parametrize(("dataset", "model"), PAIRS, ids=["-".join(pair) for pair in PAIRS])
def test_models_on_a_gpu_are_drawn_from_data_on_the_cpu(dataset: str, model: str) -> None:
    built = experiment(dataset, model)
    built.model.cuda()
    assert list(draw_all(built)) == PAIRS[dataset, model]


# --- numbers ---------------------------------------------------------------------------------------


def test_the_error_of_a_prediction_is_the_task_s() -> None:
    built = experiment("spiral", "node")
    scene = Scene(built.model, built.spec, built.splits, built.dataset, {})
    measured = built.task.evaluate(built.model, built.splits.test, 100)
    assert scene.predictions["test"].mean_mse == pytest.approx(measured["mse"], rel=1e-9)


def test_titles_repeat_what_was_measured() -> None:
    built = experiment("spiral", "node")
    name, figure = next(draw(built.model, built.spec, built.splits, built.dataset, {"test/mse": 3.1e-5}))
    assert name == "trajectories"
    assert "test mse 3.1e-05" in heading(figure)


def test_the_true_density_and_its_likelihood_are_shown_where_they_are_known() -> None:
    built = experiment("eight_gaussians", "cnf", dataset__test=500)
    _, figure = next(draw(built.model, built.spec, built.splits, built.dataset, {"test/nll": 2.9}))
    assert [axes.get_title() for axes in figure.axes[2:4]] == ["density of the model", "true density"]
    truth = -float(built.dataset.log_prob(built.splits.test.x).mean())
    assert f"test nll 2.9 nats (true density: {truth:.3g}, its entropy: 2.83)" in heading(figure)


def test_a_field_that_is_the_true_one_is_off_by_nothing() -> None:
    built = experiment("oscillator", "node", dataset__long=0)
    scene = Scene(Exact(built.dataset, built.model), built.spec, built.splits, built.dataset, {})
    assert "off by 0.00%" in phase_portrait.title(scene)


class Exact(nn.Module):
    """A model that knows the true field, and predicts with another model."""

    def __init__(self, dataset: Any, model: nn.Module) -> None:
        super().__init__()
        self.vector_field = dataset.vector_field
        self.model = model

    def forward(self, *arguments: Tensor) -> ModelOutput:
        return self.model(*arguments)


def test_large_convolutional_classifiers_are_drawn_from_a_part_of_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node_runner.reporting.figures.scene.FEW", 2)
    built = experiment("digits", "node", field="conv", model__state=4)
    scene = Scene(built.model, built.spec, built.splits, built.dataset, {})
    assert len(scene.examples) == 2
    assert "on 2 of 6 test examples" in scene.accuracy


# --- data of other shapes ----------------------------------------------------------------------------


class Rotation(nn.Module):
    """Predicts y(t) = y(0) cos t for any state, from t = 0.5 on times `spoil` (B,)."""

    def __init__(self, spoil: Sequence[float] = ()) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))
        self.spoil = torch.tensor(spoil, dtype=torch.float64)

    def forward(self, y0: Tensor, ts: Tensor, t0: Tensor | None = None) -> ModelOutput:
        ys = y0 * ts.cos()[:, None, None] * self.scale
        if len(self.spoil):
            ys = torch.where(ts[:, None, None] > 0.5, ys * self.spoil[:, None], ys)
        return ModelOutput(ys, [], {})

    def vector_field(self, t: Tensor, y: Tensor) -> Tensor:
        return torch.where(y > 0, -y, y * self.spoil.sum())


def made_up(axes: int, *, mask: bool = False) -> tuple[DataSpec, Splits[Trajectories]]:
    """A few trajectories with `axes` axes, without names for them, of ragged length if `mask`."""
    ts = torch.linspace(0, 1, 12, dtype=torch.float64)
    ys = torch.randn(3, 1, axes, dtype=torch.float64) * ts.cos()[:, None] + 0.1
    seen = (torch.arange(12) < torch.tensor([[12], [9], [5]])) if mask else None
    part = Trajectories(ts, torch.where(seen[..., None], ys, torch.nan) if seen is not None else ys, seen)
    zero, one = torch.zeros(axes, dtype=torch.float64), torch.ones(axes, dtype=torch.float64)
    return DataSpec("made-up", View.trajectories, (axes,), zero, one), Splits(part, part, part)


@pytest.mark.parametrize("axes", [1, 6])
def test_states_of_any_size_are_drawn(axes: int) -> None:
    spec, splits = made_up(axes)
    figures = dict(draw(Rotation(), spec, splits, SimpleNamespace()))
    expected = [name for name in TRAJECTORIES if axes > 1 or name != "phase_portrait"]
    assert list(figures) == expected
    assert ("first 4 of 6 axes" in heading(figures["trajectories"])) == (axes == 6)


def test_what_was_not_observed_is_not_drawn() -> None:
    spec, splits = made_up(2, mask=True)
    scene = Scene(Rotation(), spec, splits, SimpleNamespace(), {})  # type: ignore[arg-type]
    assert (np.isfinite(scene.predictions["test"].errors).sum(axis=1) == [12, 9, 5]).all()
    assert pixels(error_over_time.draw(scene)).std() > 0.02


def test_errors_at_times_of_a_trajectory_s_own_are_taken_together_over_spans_of_time() -> None:
    ts = np.linspace(0, 1, 101)
    true = np.full((2, 101, 1), np.nan)
    true[0, ::2], true[1, 1::2] = 0.0, 1.0  # no time is that of both
    true[:, 41:45] = np.nan  # the span from 0.4 to 0.44
    times, columns = error_over_time.by_time(Prediction(ts, true, np.full_like(true, 2.0)))
    assert len(times) == len(columns) == 24 and np.diff(times).argmax() == 9
    assert all(sorted(set(column[~np.isnan(column)])) == [1.0, 2.0] for column in columns)
    complete = Prediction(ts, np.nan_to_num(true), np.full_like(true, 2.0))
    assert len(error_over_time.by_time(complete)[1]) == 100


def test_states_with_gaps_are_dots_in_the_phase_portrait() -> None:
    spec, splits = made_up(2, mask=True)
    figure = phase_portrait.draw(Scene(Rotation(), spec, splits, SimpleNamespace(), {}))  # type: ignore[arg-type]
    assert figure is not None and figure.axes[0].get_title() == "observed trajectories"
    assert [line.get_marker() for line in figure.axes[0].lines if line.get_label() == "observed"] == [".", "."]


def test_no_path_is_made_up_between_two_times_alone() -> None:
    line, learned = draw_all(experiment("crossing", "node"))["trajectories"].axes[0].lines
    assert (line.get_linestyle(), learned.get_linestyle(), learned.get_marker()) == ("None", ":", "o")


def test_an_error_at_a_single_time_is_drawn() -> None:
    spec, splits = made_up(2)
    part = Trajectories(splits.train.ts[:2], splits.train.ys[:, :2])
    scene = Scene(Rotation(), spec, Splits(part, part, part), SimpleNamespace(), {})  # type: ignore[arg-type]
    picture = pixels(error_over_time.draw(scene))
    right = picture[:, int(0.85 * picture.shape[1]) :]  # the one time is the last, and no legend is there
    assert (right[..., 2] - right[..., 0] > 0.3).sum() > 3


def test_predictions_that_are_not_finite_are_drawn_as_far_as_they_go(caplog: pytest.LogCaptureFixture) -> None:
    spec, splits = made_up(2)
    dataset = SimpleNamespace(vector_field=lambda t, y: -y)
    figures = dict(draw(Rotation((torch.inf, torch.nan, 1e200)), spec, splits, dataset))
    assert list(figures) == TRAJECTORIES, caplog.text
    assert all(pixels(figure).std() > 0.02 for figure in figures.values())


@pytest.mark.parametrize("axes", [1, 3])
def test_points_of_any_size_are_drawn(axes: int) -> None:
    points = Points(torch.randn(50, axes, dtype=torch.float64))
    model = Gaussian(axes)
    spec = DataSpec("made-up", View.points, (axes,), torch.zeros(axes), torch.ones(axes))
    figures = dict(draw(model, spec, Splits(points, points, points), SimpleNamespace()))
    assert list(figures) == (["density"] if axes == 1 else ["density", "flow"])


class Gaussian(nn.Module):
    """A flow that stays where it is."""

    def __init__(self, axes: int) -> None:
        super().__init__()
        self.axes = axes
        self.register_buffer("times", torch.tensor([0.0, 1.0], dtype=torch.float64))

    def path(self, count: int, times: int, *, generator: torch.Generator) -> Tensor:
        return torch.randn(count, self.axes, generator=generator, dtype=torch.float64).expand(times, -1, -1)

    def log_prob(self, x: Tensor) -> Tensor:
        return -0.5 * x.pow(2).sum(dim=1) - 0.9189 * self.axes


# --- what cannot be drawn ------------------------------------------------------------------------------


class Codes(nn.Module):
    """A latent model of series whose states stand still and are their values."""

    def __init__(self) -> None:
        super().__init__()
        self.here = nn.Parameter(torch.zeros(()))

    def posterior(self, ts: Tensor, values: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        return values[0], torch.zeros_like(values[0])

    def trajectory(self, z0: Tensor, ts: Tensor) -> Tensor:
        return z0.expand(len(ts), *z0.shape)

    def decode(self, z: Tensor) -> Tensor:
        return 2 * z


def test_between_the_two_codes_that_differ_most_there_is_a_straight_line() -> None:
    ys = torch.tensor([[0.0, 0, 0], [1, 2, 3], [-1, 4, 9]]).unsqueeze(1).expand(3, 5, 3)
    seen = torch.ones(3, 5, 3, dtype=torch.bool)
    part = Series(torch.arange(5.0), ys, seen, seen)
    spec = DataSpec("made-up", View.series, (3,), torch.zeros(3), torch.ones(3))
    figure = interpolation.draw(Scene(Codes(), spec, Splits(part, part, part), None, {}))  # type: ignore[arg-type]
    assert figure is not None
    heights = np.array([[line.get_ydata()[0] for line in axes.lines[: interpolation.STEPS]] for axes in figure.axes])
    ends = 2 * np.array([ys[0, 0].numpy(), ys[2, 0].numpy()])
    share = np.linspace(0, 1, interpolation.STEPS)[:, None]
    assert heights.T == pytest.approx((1 - share) * ends[0] + share * ends[1], abs=1e-6)


def fail(*arguments: Any, **settings: Any) -> Any:
    raise SolveFailed("the step became too small")


def broken(scene: Scene) -> Figure:
    raise IndexError("no such axis")


@pytest.fixture
def simple(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stands for the figures of trajectories."""
    makers: dict[str, Any] = {"first": lambda scene: Figure(), "last": lambda scene: Figure()}
    monkeypatch.setitem(FIGURES, View.trajectories, makers)
    return makers


def test_a_figure_whose_solve_fails_is_left_out_with_a_warning(
    simple: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    simple["first"] = fail
    assert [name for name, _ in draw(Rotation(), *made_up(2), SimpleNamespace())] == ["last"]
    assert caplog.messages == ["figure first left out: the step became too small"]


def test_a_bug_in_a_figure_does_not_cost_the_run(simple: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    simple["first"] = broken
    assert [name for name, _ in draw(Rotation(), *made_up(2), SimpleNamespace())] == ["last"]
    assert "figure first left out" in caplog.text
    assert "IndexError: no such axis" in caplog.text


def test_a_figure_that_does_not_suit_the_data_is_left_out_without_a_word(
    simple: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    simple["first"] = lambda scene: None
    assert [name for name, _ in draw(Rotation(), *made_up(2), SimpleNamespace())] == ["last"]
    assert not caplog.messages


def test_a_further_test_whose_solve_fails_is_left_out_of_the_figures(caplog: pytest.LogCaptureFixture) -> None:
    spec, splits = made_up(2)
    long = Trajectories(torch.linspace(0, 5, 20, dtype=torch.float64), torch.zeros(2, 20, 2, dtype=torch.float64))

    class Short(Rotation):
        def forward(self, y0: Tensor, ts: Tensor, t0: Tensor | None = None) -> ModelOutput:
            return super().forward(y0, ts, t0) if ts[-1] < 2 else fail()

    parts = Splits(splits.train, splits.val, splits.test, {"test_long": long})
    scene = Scene(Short(), spec, parts, SimpleNamespace(), {})  # type: ignore[arg-type]
    assert list(scene.predictions) == ["train", "test"]
    assert caplog.messages == ["figures leave test_long out: the step became too small"]


def test_a_copy_on_the_host_is_float64_and_marks_what_is_not_finite() -> None:
    copy = host(torch.tensor([1.0, torch.inf, -torch.inf, torch.nan], dtype=torch.float32))
    assert copy.dtype == np.float64
    np.testing.assert_array_equal(copy, [1.0, np.nan, np.nan, np.nan])


def test_the_points_of_a_plane_go_row_by_row() -> None:
    points = plane((0.0, 1.0), (5.0, 7.0), 2)
    assert points.tolist() == [[0, 5], [1, 5], [0, 7], [1, 7]]


@pytest.mark.parametrize("length", [10, 60, 150])
def test_a_title_fits_its_figure(length: int) -> None:
    with style():
        figure = sheet(5.6, 3.0, "m" * length)
        assert figure._suptitle is not None  # type: ignore[attr-defined]
        assert figure._suptitle.get_window_extent().x1 <= figure.bbox.width  # type: ignore[attr-defined]


def test_space_stops_a_trajectory_where_it_leaves_the_box():
    states = np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5], [2.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    kept = space._inside(states, [(-1.0, 1.0)] * 3)
    np.testing.assert_array_equal(kept[:2], states[:2])
    assert np.isnan(kept[2:]).all()


def test_series_of_which_nothing_is_known_after_the_end_are_not_chosen() -> None:
    true = np.full((4, 6, 1), np.nan)
    true[:3, 5] = [[1.0], [3.0], [2.0]]
    true[:, 0] = 0.0
    found = Continued(np.arange(6.0), true, true, np.zeros_like(true), Lines(true, true, true), end=3.0)
    assert found.errors[:3].tolist() == [1, 9, 4]
    assert chosen(found) == [("best of 3", 0), ("median of 3", 2), ("worst of 3", 1)]
