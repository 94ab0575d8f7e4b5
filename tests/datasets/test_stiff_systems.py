"""Van der Pol, FitzHugh-Nagumo, Robertson, Lorenz: against published values, invariants and an independent solver."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from node_runner.datasets import DATASETS
from node_runner.datasets.parts.reference import solve, solve_stiff
from node_runner.datasets.robertson import Robertson
from node_runner.datasets.van_der_pol import VanDerPol, lienard_plane, period, phase_plane
from node_runner.views import View


SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("van_der_pol", {"mu": 3.0}),
    ("van_der_pol", {"mu": 3.0, "lienard": True}),
    ("fitzhugh_nagumo", {}),
    ("robertson", {"k1": 0.05}),
    ("lorenz", {"rho": 20.0}),
]


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_the_equation_with_the_true_parameters_is_the_field_in_numpy_and_torch(name: str, settings: dict[str, Any]):
    dataset = DATASETS.get(name)(**settings)
    equation = dataset.equation()
    true = {key: getattr(dataset, key) for key in equation.parameters}
    y, t = torch.rand(5, len(dataset.labels), dtype=torch.float64), torch.linspace(0, 2, 5).double()
    expected = dataset.vector_field(t, y)
    torch.testing.assert_close(equation.form(t, y, **true), expected)
    np.testing.assert_allclose(dataset.vector_field(t.numpy(), y.numpy()), expected.numpy())
    assert not torch.allclose(equation.form(t, y, **equation.parameters), expected)


@pytest.mark.parametrize("mu", [5.0, 100.0])
def test_a_stiff_solve_is_that_of_another_solver(mu: float):
    dataset = VanDerPol(mu=mu)
    ts = np.linspace(0, 0.6 * mu, 7)
    y0 = np.array([[2.0, 0.0], [1.5, -1.0]])
    ys = solve_stiff(dataset.vector_field, ts, y0)
    for row, start in enumerate(y0):
        other = solve_ivp(dataset.vector_field, (0, ts[-1]), start, "Radau", t_eval=ts, rtol=1e-10, atol=1e-12).y.T
        np.testing.assert_allclose(ys[:, row], other, rtol=1e-6, atol=1e-9)


def test_a_solve_beyond_all_bounds_ends_in_nan():
    with np.errstate(over="ignore", invalid="ignore"):
        ys = solve_stiff(lambda t, y: y**3, np.linspace(0, 2, 5), np.ones((1, 1)))
    assert np.isfinite(ys[0]).all()
    assert np.isnan(ys[-1]).all()


@pytest.mark.parametrize(("mu", "published"), [(1.0, 6.6633), (2.0, 7.6299), (5.0, 11.6122), (10.0, 19.0784)])
def test_the_period_is_that_of_the_limit_cycle_within_its_bound(mu: float, published: float):
    assert period(mu) == pytest.approx(published, rel=0.16)
    after = np.array([0.0, 20 * published, 21 * published])
    ys = solve_stiff(VanDerPol(mu=mu).vector_field, after, np.array([[2.0, 0.0]]))[:, 0]
    np.testing.assert_allclose(ys[2], ys[1], atol=0.05)


def test_lienard_s_plane_is_a_change_of_variables():
    mu, (x, v) = 7.0, (0.8, -1.3)
    y = x - x**3 / 3 - v / mu
    first, second = lienard_plane(0.0, np.array([x, y]), mu=mu)
    assert first == pytest.approx(v)
    # y' = (1 - x^2) v - v'/mu.
    acceleration = phase_plane(0.0, np.array([x, v]), mu=mu)[1]
    assert second == pytest.approx((1 - x**2) * v - acceleration / mu)


def test_robertson_s_concentrations_are_the_published_ones():
    # Hindmarsh and Serban, Example Programs for CVODE, section 2.1.
    dataset = Robertson()
    published = {0.4: (9.8517e-1, 3.3864e-5, 1.4794e-2), 40.0: (7.1582e-1, 9.1854e-6, 2.8418e-1)}
    decades = [0.0, *(math.log10(1 + t / dataset.t0) for t in published)]
    ys = solve_stiff(dataset.vector_field, np.array(decades), np.array([[1.0, 0.0, 0.0]]))[1:, 0]
    for (a, b, c), y in zip(published.values(), ys, strict=True):
        np.testing.assert_allclose(y, (a, 1e4 * b, c), rtol=2e-4)


def test_robertson_s_concentrations_have_a_constant_sum():
    for _, part in Robertson(train=3, val=2, test=2, long=2).splits(View.trajectories).items():
        total = part.ys[..., 0] + part.ys[..., 1] / 1e4 + part.ys[..., 2]
        torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-8)


def test_lorenz_s_fixed_points_rest_and_trajectories_begin_on_the_attractor():
    dataset = DATASETS.get("lorenz")(train=20, times=2)
    height = math.sqrt(dataset.beta * (dataset.rho - 1))
    rest = np.array([[height, height, dataset.rho - 1], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(dataset.vector_field(0.0, rest), 0.0, atol=1e-12)
    starts = dataset.splits(View.trajectories).train.ys[:, 0]
    later = solve(dataset.vector_field, np.array([0.0, 3.0]), starts.numpy())[1]
    # The attractor's extent, which neither the settled starts nor what follows leaves.
    for states in (starts.numpy(), later):
        assert np.abs(states[:, 0]).max() < 20
        assert states[:, 2].min() > 0.9
        assert states[:, 2].max() < 48


def test_a_nerve_cell_fires_with_the_default_current_and_rests_with_little():
    after = np.linspace(150, 250, 201)
    swings = []
    for current in (0.5, 0.1):
        dataset = DATASETS.get("fitzhugh_nagumo")(current=current)
        voltage = solve_stiff(dataset.vector_field, np.array([0.0, *after]), np.array([[0.0, 0.0]]))[1:, 0, 0]
        swings.append(float(np.ptp(voltage)))
    assert swings[0] > 3.0
    assert swings[1] < 0.05
