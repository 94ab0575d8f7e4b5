"""The bouncing ball: closed forms against the equations of motion, and times of impact."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from node_runner.datasets.bouncing_ball import BouncingBall
from node_runner.errors import ConfigError
from node_runner.views import View


Y0 = np.array([[1.0, 0.0], [0.5, 1.0], [1.5, -1.0]])


def test_states_and_impacts_are_those_of_a_solver_that_stops_at_every_impact():
    ball, ts = BouncingBall(restitution=0.8), np.linspace(0, 1.7, 35)
    impacts, states = ball.event_times(1.7, Y0), ball.solution(ts, Y0)

    def ground(t: float, y: np.ndarray) -> float:
        return float(y[0])

    ground.terminal, ground.direction = True, -1  # type: ignore[attr-defined]
    for row, y in enumerate(Y0):
        t, found = 0.0, []
        while t < 1.7:
            flight = solve_ivp(ball.vector_field, (t, 1.7), y, events=ground, rtol=1e-11, atol=1e-13, dense_output=True)
            inside = (ts > t) & (ts < flight.t[-1])
            np.testing.assert_allclose(states[inside, row], flight.sol(ts[inside]).T, rtol=0, atol=1e-9)
            t = float(flight.t[-1])
            if len(flight.t_events[0]):
                found.append(t)
                y = np.array([0.0, -0.8 * flight.y[1, -1]])
        np.testing.assert_allclose(impacts[row][impacts[row] >= 0], found, rtol=0, atol=1e-9)


def test_a_ball_let_go_at_rest_falls_for_the_textbook_time_and_rises_to_the_square_of_the_restitution():
    ball = BouncingBall(gravity=2.0, restitution=0.5)
    ((first, second),) = ball.event_times(2.4, np.array([[1.0, 0.0]]))
    assert (first, second) == (1.0, 2.0)  # sqrt(2 h / g), then 2 restitution v / g
    np.testing.assert_allclose(
        ball.solution(np.array([0.0, 1.5]), np.array([[1.0, 0.0]]))[1, 0], [0.25, 0.0], atol=1e-15
    )


def test_without_loss_the_energy_stays_through_every_impact():
    ball, ts = BouncingBall(restitution=1.0), np.linspace(0, 10, 101)
    states = ball.solution(ts, Y0)
    energy = ball.gravity * states[..., 0] + states[..., 1] ** 2 / 2
    np.testing.assert_allclose(energy, np.broadcast_to(energy[0], energy.shape), rtol=1e-12)
    assert (states[..., 0] >= -1e-12).all()


def test_the_long_test_has_more_impacts_and_every_part_keeps_its_own():
    splits = BouncingBall().splits(View.trajectories)
    assert all(part.events is not None and len(part.events) == len(part) for _, part in splits.items())
    assert splits.extra["test_long"].events.shape[1] > splits.test.events.shape[1]
    for _, part in splits.items():
        real = part.events[part.events >= 0]
        assert (real <= part.ts[-1]).all() and len(real) >= 2 * len(part)


def test_a_ball_that_comes_to_rest_is_refused_with_what_to_use():
    with pytest.raises(ConfigError, match=r"comes to rest at t=.* use a lower dataset.horizon"):
        BouncingBall(restitution=0.5).check()


def test_states_that_no_ball_starts_in_are_refused():
    with pytest.raises(ConfigError, match="use heights above 0"):
        BouncingBall(start=[[0.0, 1.0]])
    with pytest.raises(ConfigError, match="use less"):
        BouncingBall(height_min=2.0)
