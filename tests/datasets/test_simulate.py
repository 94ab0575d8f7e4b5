import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from node_runner.config import compose_run
from node_runner.datasets import DATASETS
from node_runner.datasets.lotka_volterra import LotkaVolterra
from node_runner.datasets.oscillator import Oscillator
from node_runner.datasets.parts import reference
from node_runner.datasets.parts.reference import BATCH, solve
from node_runner.datasets.spiral import Spiral
from node_runner.datasets.van_der_pol import VanDerPol
from node_runner.errors import ConfigError
from node_runner.settings import SpiralForm
from node_runner.views import Splits, Trajectories, View


SMALL = {"train": 3, "val": 2, "test": 2, "long": 2, "times": 11, "horizon": 0.25, "long_start": None}
PARTS = ["train", "val", "test", "test_long"]


SYSTEMS: dict[str, Callable[..., Any]] = {
    "cubic spiral": functools.partial(Spiral, form=SpiralForm.cubic),
    "linear spiral": functools.partial(Spiral, form=SpiralForm.linear),
    "oscillator": Oscillator,
    "lotka-volterra": LotkaVolterra,
}


@pytest.fixture(params=SYSTEMS.values(), ids=SYSTEMS)
def make(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Builds one of the systems, small, with the settings that a test is about."""
    return lambda **settings: request.param(**{**SMALL, **settings})


def trajectories(dataset: Any) -> Splits[Trajectories]:
    return dataset.splits(View.trajectories)


def states(dataset: Any) -> dict[str, torch.Tensor]:
    return {name: part.ys for name, part in trajectories(dataset).items()}


def test_every_part_has_the_asked_number_of_trajectories_and_times(make):
    parts = dict(trajectories(make()).items())
    assert {name: tuple(part.ys.shape) for name, part in parts.items()} == {
        "train": (3, 11, 2),
        "val": (2, 11, 2),
        "test": (2, 11, 2),
        "test_long": (2, 21, 2),
    }
    assert all(part.ys.dtype == part.ts.dtype == torch.float64 and part.mask is None for part in parts.values())


def test_points_are_all_observed_states_of_each_part(make):
    dataset = make(noise=0.1)
    points = dict(dataset.splits(View.points).items())
    assert list(points) == PARTS
    for name, ys in states(dataset).items():
        assert torch.equal(points[name].x, ys.reshape(-1, 2))


def test_statistics_are_those_of_the_noisy_training_observations(make):
    dataset = make(noise=0.3)
    observed = trajectories(dataset).train.ys.reshape(-1, 2)
    for view in dataset.views:
        spec = dataset.spec(view)
        torch.testing.assert_close(spec.mean, observed.mean(0))
        torch.testing.assert_close(spec.std, observed.std(0, correction=0))
        assert (spec.view, spec.shape, spec.num_classes, len(spec.labels)) == (view, (2,), 0, 2)


@pytest.mark.parametrize("ask", ["splits", "spec"])
def test_the_labelled_view_is_refused(make, ask):
    with pytest.raises(ConfigError, match="offers no view 'labelled', only trajectories and points"):
        getattr(make(), ask)(View.labelled)


def test_same_seed_same_data_and_another_seed_other_data(make):
    first, again, other = (states(make(noise=0.1, seed=seed)) for seed in (4, 4, 5))
    for part in PARTS:
        assert torch.equal(first[part], again[part])
        assert not torch.isclose(first[part][:, 0], other[part][:, 0]).any()


@pytest.mark.parametrize("changed", PARTS)
def test_the_size_of_one_part_leaves_the_others_as_they_are(make, changed):
    setting = "long" if changed == "test_long" else changed
    before, after = states(make(noise=0.1)), states(make(noise=0.1, **{setting: 5}))
    assert len(after[changed]) == 5
    for part in set(PARTS) - {changed}:
        assert torch.equal(before[part], after[part])


def test_no_two_trajectories_start_at_the_same_state(make):
    starts = torch.cat([ys[:, 0] for ys in states(make(train=20, val=20, test=20, long=20)).values()])
    assert len(starts.unique(dim=0)) == 80


def test_noise_falls_on_every_training_and_validation_observation_and_on_no_test(make):
    exact, noisy = states(make(train=40, val=40)), states(make(train=40, val=40, noise=0.05))
    for part in ("train", "val"):
        noise = noisy[part] - exact[part]
        assert (noise != 0).all()
        torch.testing.assert_close(noise.std().item(), 0.05, rtol=0.1, atol=0)
        torch.testing.assert_close(noise[:, 0].std().item(), 0.05, rtol=0.35, atol=0)
    assert torch.equal(noisy["test"], exact["test"])
    assert torch.equal(noisy["test_long"], exact["test_long"])


@pytest.mark.parametrize(
    ("factor", "points"), [(1.0, 11), (1.1, 12), (1.55, 17), (3.0, 31)], ids=["same", "a tenth", "between", "thrice"]
)
def test_the_long_test_reaches_its_factor_of_the_horizon_with_the_same_spacing(make, factor, points):
    parts = trajectories(make(long_factor=factor))
    ts, long_ts = parts.test.ts, parts.extra["test_long"].ts
    assert ts[-1] == 0.25
    assert len(long_ts) == points
    assert torch.equal(long_ts[:11], ts)
    assert long_ts[-1] >= factor * 0.25 - 1e-12
    torch.testing.assert_close(long_ts.diff(), torch.full_like(long_ts[1:], 0.025))


def test_long_zero_means_no_long_test(make):
    assert dict(trajectories(make(long=0)).extra) == {}
    assert dict(trajectories(make(long=0, long_start=[[1.0, 1.0]])).extra) == {}


def test_given_initial_states_replace_the_drawn_ones_and_their_number(make):
    given, long_given = [[1.0, 0.5], [0.25, 0.5]], [[0.5, 1.0], [1.0, 1.0], [1.5, 1.0]]
    drawn, chosen = states(make()), states(make(start=given, long_start=long_given, train=9))
    assert chosen["train"][:, 0].tolist() == given
    assert chosen["test_long"][:, 0].tolist() == long_given
    assert torch.equal(chosen["val"], drawn["val"])


@pytest.mark.parametrize("setting", ["start", "long_start"])
@pytest.mark.parametrize(
    "wrong", [[], [[1.0]], [[1.0, 2.0], [1.0, 2.0, 3.0]], [[1.0, float("nan")]]], ids=["none", "short", "long", "nan"]
)
def test_initial_states_that_are_no_states_are_refused_at_once(make, setting, wrong):
    with pytest.raises(ConfigError, match=rf"dataset\.{setting}: expected a list of states"):
        make(**{setting: wrong})


def test_the_data_solve_the_equation_of_the_vector_field(make):
    # Eighth-order central differences of the data against the field, at the inner points of a fine grid.
    part = trajectories(make(times=201)).test
    dataset, ys, dt = make(), part.ys, part.ts[1] - part.ts[0]
    weights = [4 / 5, -1 / 5, 4 / 105, -1 / 280]
    slope = sum(w * (ys[:, 4 + k : 197 + k] - ys[:, 4 - k : 197 - k]) for k, w in enumerate(weights, start=1)) / dt
    field = dataset.vector_field(None, ys[:, 4:197])
    torch.testing.assert_close(slope, field, rtol=1e-7, atol=1e-7)


def test_the_vector_field_is_the_same_for_arrays_and_tensors(make):
    y = torch.tensor([[1.0, 2.0], [0.3, -0.4]], dtype=torch.float64)
    dataset = make()
    as_tensor, as_array = dataset.vector_field(None, y), dataset.vector_field(None, y.numpy())
    assert isinstance(as_tensor, torch.Tensor) and isinstance(as_array, np.ndarray)
    torch.testing.assert_close(as_tensor, torch.from_numpy(as_array))


def test_a_solve_of_many_batches_equals_the_solves_of_each():
    ts, y0 = np.linspace(0.0, 1.0, 3), np.linspace([0.5, 1.0], [2.0, -1.0], BATCH + 2)
    field = Spiral(form=SpiralForm.cubic).vector_field
    together = solve(field, ts, y0)
    assert together.shape == (3, BATCH + 2, 2)
    for rows in ([0], [BATCH - 1, BATCH], [BATCH + 1]):
        np.testing.assert_allclose(together[:, rows], solve(field, ts, y0[rows]), rtol=1e-11, atol=1e-12)


def test_a_solve_is_nan_after_the_solution_has_left_every_bound():
    # y' = y^2, y(0) = 1 is 1 / (1 - t).
    with np.errstate(over="ignore", invalid="ignore"):
        ys = solve(lambda t, y: y**2, np.array([0.0, 0.5, 0.9, 1.1, 2.0]), np.array([[1.0]]))
    np.testing.assert_allclose(ys[:, 0, 0], [1.0, 2.0, 10.0, np.nan, np.nan], rtol=1e-10)


def test_initial_states_may_be_typed_in_whole_numbers():
    run = compose_run(["dataset=spiral", "dataset.start=[[1,0],[0.5,2]]", "dataset.long_start=[[2,2]]"])
    spiral = DATASETS.build(run.dataset)
    assert spiral.start == [[1.0, 0.0], [0.5, 2.0]] and isinstance(spiral.start[0][0], float)
    assert spiral.long_start == [[2.0, 2.0]]


@pytest.mark.parametrize("system", [VanDerPol, LotkaVolterra])
def test_a_solution_that_takes_too_many_evaluations_is_refused(system: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reference, "MOST", 40)
    with pytest.raises(ConfigError, match=r"evaluations take the solution of .* to t=.*; use milder parameters"):
        trajectories(system(**SMALL))
