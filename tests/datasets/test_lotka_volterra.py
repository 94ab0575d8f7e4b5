import numpy as np
import pytest

from node_runner.datasets.lotka_volterra import LotkaVolterra
from node_runner.datasets.parts.reference import solve
from node_runner.errors import ConfigError
from node_runner.views import View


def invariant_of(system: LotkaVolterra, y: np.ndarray) -> np.ndarray:
    """Conserved along every orbit: (...,) from y (..., 2), both populations above 0."""
    prey, predator = y[..., 0], y[..., 1]
    return system.delta * prey - system.gamma * np.log(prey) + system.beta * predator - system.alpha * np.log(predator)


def test_the_invariant_is_constant_along_all_data():
    dataset = LotkaVolterra()
    for _, part in dataset.splits(View.trajectories).items():
        invariant = invariant_of(dataset, part.ys.numpy())
        np.testing.assert_allclose(invariant, np.broadcast_to(invariant[:, :1], invariant.shape), rtol=0, atol=1e-11)


def test_the_invariant_is_constant_even_where_the_predators_nearly_die_out():
    dataset, ts = LotkaVolterra(), np.linspace(0.0, 20.0, 100)
    ys = solve(dataset.vector_field, ts, np.array([[200.0, 1.0], [10.0, 5.0]]))
    assert ys[:, 0].min() < 1e-4
    invariant = invariant_of(dataset, ys)
    np.testing.assert_allclose(invariant, np.broadcast_to(invariant[0], invariant.shape), rtol=0, atol=1e-10)


def test_the_field_is_the_equations_with_their_classic_coefficients():
    np.testing.assert_allclose(LotkaVolterra().vector_field(0.0, np.array([10.0, 5.0])), [10 - 5, -7.5 + 3.75])


def test_nothing_moves_at_the_equilibrium():
    dataset = LotkaVolterra(alpha=2.0, beta=0.5, gamma=3.0, delta=0.25)
    np.testing.assert_allclose(dataset.vector_field(0.0, np.array([12.0, 4.0])), [0.0, 0.0], atol=1e-15)


def test_small_orbits_take_the_period_of_the_linearised_equations():
    period = 2 * np.pi / np.sqrt(1.5)
    ys = solve(LotkaVolterra().vector_field, np.linspace(0.0, period, 3), np.array([[20.002, 10.0]]))
    np.testing.assert_allclose(ys[-1], ys[0], rtol=0, atol=1e-6)
    np.testing.assert_allclose(ys[1, 0], [19.998, 10.0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("spread", [0.1, 0.6])
def test_starts_fill_the_box_about_the_equilibrium(spread):
    starts = LotkaVolterra(train=300, spread=spread, times=2, horizon=0.1).splits(View.trajectories).train.ys[:, 0]
    factors = starts.numpy() / [20.0, 10.0]
    assert (abs(factors - 1) <= spread).all()
    assert (factors.max(0) > 1 + 0.95 * spread).all() and (factors.min(0) < 1 - 0.95 * spread).all()


@pytest.mark.parametrize("setting", ["start", "long_start"])
def test_negative_populations_are_refused(setting):
    with pytest.raises(ConfigError, match=rf"dataset\.{setting}: expected populations of at least 0"):
        LotkaVolterra(**{setting: [[10.0, 5.0], [-1.0, 5.0]]})


def test_without_predators_the_prey_grow_exponentially():
    ys = LotkaVolterra(start=[[1.0, 0.0]], times=5, horizon=2.0).splits(View.trajectories).train.ys[0].numpy()
    np.testing.assert_allclose(ys[:, 0], np.exp(np.linspace(0, 2, 5)), rtol=1e-12)
    assert (ys[:, 1] == 0).all()


def test_populations_without_bounds_are_refused():
    dataset = LotkaVolterra(start=[[1e300, 0.0]], times=5, horizon=40.0, val=1, test=1, long=0)
    with pytest.raises(ConfigError, match=r"lotka-volterra: the solution grows beyond all bounds"):
        dataset.check()


def test_its_axes_are_prey_and_predator():
    assert LotkaVolterra(horizon=0.1, long=0).spec(View.points).labels == ("prey", "predator")
