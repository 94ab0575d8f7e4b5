import numpy as np
import pytest

from node_runner.datasets.oscillator import Oscillator
from node_runner.datasets.parts.reference import solve
from node_runner.views import View


TS = np.linspace(0.0, 10.0, 101)
Y0 = np.random.default_rng(0).uniform(-2, 2, (12, 2))
DAMPINGS = [0.0, 0.1, 1 - 1e-9, 1.0, 1 + 1e-9, 3.0]


@pytest.mark.parametrize("zeta", DAMPINGS)
def test_the_closed_form_equals_the_solve(zeta):
    oscillator = Oscillator(zeta=zeta)
    exact, solved = oscillator.solution(TS, Y0), solve(oscillator.vector_field, TS, Y0)
    assert exact.shape == (101, 12, 2)
    np.testing.assert_allclose(exact, solved, rtol=0, atol=1e-11)


def test_without_damping_it_is_a_cosine():
    exact = Oscillator(zeta=0.0, omega_n=3.0).solution(TS, np.array([[1.0, 0.0]]))[:, 0]
    np.testing.assert_allclose(exact, np.stack((np.cos(3 * TS), -3 * np.sin(3 * TS)), axis=1), atol=1e-13)


def test_critical_damping_is_the_textbook_formula():
    exact = Oscillator(zeta=1.0, omega_n=2.0).solution(TS, np.array([[1.0, 0.0]]))[:, 0, 0]
    np.testing.assert_allclose(exact, (1 + 2 * TS) * np.exp(-2 * TS), rtol=1e-12)


def test_heavy_damping_does_not_overflow():
    # The slow mode of a heavily damped oscillator decays at omega_n / (2 zeta).
    exact = Oscillator(zeta=1e4, omega_n=2.0).solution(TS, np.array([[1.0, 0.0]]))[:, 0, 0]
    np.testing.assert_allclose(exact, np.exp(-1e-4 * TS), rtol=1e-7)


def test_the_data_are_the_closed_form():
    oscillator = Oscillator()
    part = oscillator.splits(View.trajectories).test
    expected = oscillator.solution(part.ts.numpy(), part.ys[:, 0].numpy())
    np.testing.assert_array_equal(part.ys.numpy(), expected.swapaxes(0, 1))


def test_the_long_test_is_released_from_rest_at_one():
    part = Oscillator().splits(View.trajectories).extra["test_long"]
    assert part.ys[:, 0].tolist() == [[1.0, 0.0]]
    assert part.ts[-1] == 10.0


def test_starts_fill_the_square():
    starts = Oscillator(train=400, radius=3.0).splits(View.trajectories).train.ys[:, 0]
    assert (starts.abs() <= 3.0).all()
    assert (starts.amax(0) > 2.9).all() and (starts.amin(0) < -2.9).all()


def test_its_axes_are_x_and_v():
    assert Oscillator().spec(View.trajectories).labels == ("x", "v")
