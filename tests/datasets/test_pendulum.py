import math

import numpy as np
import pytest
import torch

from node_runner.datasets.parts.reference import solve
from node_runner.datasets.pendulum import Pendulum
from node_runner.views import View


def test_its_energy_is_constant_along_all_data():
    dataset = Pendulum()
    for _, part in dataset.splits(View.trajectories).items():
        energy = dataset.energy(part.ys)
        torch.testing.assert_close(energy, energy[:, :1].expand_as(energy), rtol=0, atol=1e-10)


def test_its_energy_is_that_of_the_textbook():
    y = torch.tensor([[0.7, -1.2], [2.0, 0.3]], dtype=torch.float64)
    expected = y[:, 1] ** 2 / 2 + 9 * (1 - torch.cos(y[:, 0]))
    torch.testing.assert_close(Pendulum(omega_n=3.0).energy(y), expected)
    np.testing.assert_allclose(Pendulum(omega_n=3.0).energy(y.numpy()), expected.numpy())


def test_a_large_swing_takes_the_period_of_the_elliptic_integral():
    # T = 2 pi / (omega_n agm(1, cos(a / 2))).
    amplitude, one, other = 2.0, 1.0, math.cos(1.0)
    for _ in range(6):
        one, other = (one + other) / 2, math.sqrt(one * other)
    period = 2 * math.pi / (1.5 * one)
    ys = solve(Pendulum(omega_n=1.5).vector_field, np.linspace(0, period, 3), np.array([[amplitude, 0.0]]))
    np.testing.assert_allclose(ys[1:, 0], [[-amplitude, 0.0], [amplitude, 0.0]], atol=1e-9)


def test_trajectories_are_released_at_rest_within_the_swing():
    starts = Pendulum(train=300, swing=0.5, times=2, horizon=0.1, long=0).splits(View.trajectories).train.ys[:, 0]
    assert bool((starts[:, 1] == 0).all())
    assert 0.49 < float(starts[:, 0].abs().max()) <= 0.5


def test_the_long_test_lasts_ten_times_as_long():
    splits = Pendulum().splits(View.trajectories)
    assert float(splits.extra["test_long"].ts[-1]) == pytest.approx(10 * float(splits.train.ts[-1]))


def test_its_equation_with_the_true_frequency_is_its_field():
    dataset, y = Pendulum(omega_n=1.3), torch.randn(5, 2, dtype=torch.float64)
    form, parameters = dataset.equation().form, dataset.equation().parameters
    assert set(parameters) == {"omega_n"}
    torch.testing.assert_close(form(0.0, y, omega_n=1.3), dataset.vector_field(0.0, y))
