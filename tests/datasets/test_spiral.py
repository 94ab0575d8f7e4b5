import numpy as np
import pytest

from node_runner.datasets.parts.reference import solve
from node_runner.datasets.spiral import Spiral
from node_runner.errors import ConfigError
from node_runner.settings import SpiralForm
from node_runner.views import View


TS = np.linspace(0.0, 4.0, 41)
Y0 = np.random.default_rng(0).uniform(-2, 2, (12, 2))


@pytest.mark.parametrize(
    ("form", "expected"),
    [(SpiralForm.linear, [-0.2 - 6.0, 4.0 - 0.3]), (SpiralForm.cubic, [-0.8 - 54.0, 16.0 - 2.7])],
    ids=["linear", "cubic"],
)
def test_the_field_is_the_row_vector_times_the_matrix_of_the_demo(form, expected):
    # (2, 3) or (8, 27) times [[-0.1, 2], [-2, -0.1]].
    y = np.array([2.0, 3.0])
    np.testing.assert_allclose(Spiral(form=form).vector_field(0.0, y), expected)


@pytest.mark.parametrize("alpha", [0.1, 0.0, -0.3], ids=["decaying", "closed", "growing"])
def test_the_closed_form_of_the_linear_spiral_equals_the_solve(alpha):
    spiral = Spiral(form=SpiralForm.linear, alpha=alpha)
    np.testing.assert_allclose(spiral.solution(TS, Y0), solve(spiral.vector_field, TS, Y0), rtol=0, atol=1e-11)


def test_the_linear_data_are_the_closed_form():
    spiral = Spiral(form=SpiralForm.linear)
    part = spiral.splits(View.trajectories).test
    expected = spiral.solution(part.ts.numpy(), part.ys[:, 0].numpy())
    np.testing.assert_array_equal(part.ys.numpy(), expected.swapaxes(0, 1))


def test_the_cubic_spiral_without_decay_keeps_its_fourth_powers():
    spiral = Spiral(form=SpiralForm.cubic, alpha=0.0)
    energy = (solve(spiral.vector_field, TS, Y0) ** 4).sum(-1)
    np.testing.assert_allclose(energy, np.broadcast_to(energy[0], energy.shape), rtol=1e-11)


def test_the_cubic_spiral_is_a_smaller_one_run_faster():
    # If y(t) is a solution, so is c y(c^2 t).
    field = Spiral(form=SpiralForm.cubic).vector_field
    np.testing.assert_allclose(solve(field, TS / 9, 3 * Y0) / 3, solve(field, TS, Y0), rtol=0, atol=1e-11)


def test_the_cubic_spiral_returns_when_time_runs_back():
    field = Spiral(form=SpiralForm.cubic).vector_field
    there = solve(field, TS, Y0)[-1]
    # Running back amplifies errors, by about the ratio of the start's size to the end's, cubed.
    np.testing.assert_allclose(solve(lambda t, y: -field(t, y), TS, there)[-1], Y0, rtol=0, atol=1e-10)


def test_starts_lie_in_the_ring():
    starts = Spiral(train=200, times=2, horizon=0.1, radius_min=0.5, radius_max=0.7).splits(View.trajectories)
    radii = starts.train.ys[:, 0].norm(dim=1)
    assert 0.5 <= radii.min() < 0.51
    assert 0.69 < radii.max() <= 0.7


def test_a_ring_that_is_inside_out_is_refused():
    with pytest.raises(ConfigError, match=r"radius_min=3 is above dataset\.radius_max=2"):
        Spiral(radius_min=3.0)


@pytest.mark.parametrize(
    "settings",
    [{"form": SpiralForm.cubic, "alpha": -1.0}, {"form": SpiralForm.linear, "alpha": -50.0, "horizon": 100.0}],
    ids=["cubic", "linear"],
)
def test_a_spiral_that_grows_beyond_all_bounds_is_refused_with_what_to_lower(settings):
    with pytest.raises(ConfigError, match=r"grows beyond all bounds before t=.*lower dataset\.horizon"):
        Spiral(**settings).check()


def test_a_spiral_that_grows_slowly_enough_is_made():
    parts = Spiral(form=SpiralForm.cubic, alpha=-0.01, horizon=1.0, train=1, val=1, long=0).splits(View.trajectories)
    assert all(part.ys.isfinite().all() for _, part in parts.items())
    assert (parts.test.ys[:, -1].norm(dim=1) > 0.5).all()


def test_its_axes_are_x_and_y():
    assert Spiral(horizon=0.1, long=0).spec(View.points).labels == ("x", "y")
