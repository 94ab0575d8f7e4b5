import numpy as np
import pytest
import torch

from node_runner.datasets.mass_spring import MassSpring
from node_runner.datasets.parts.reference import solve
from node_runner.errors import ConfigError
from node_runner.views import View


@pytest.mark.parametrize("masses", [1, 2, 5])
def test_the_closed_form_solves_the_equation(masses):
    dataset, ts = MassSpring(masses=masses, stiffness=2.5), np.linspace(0, 7, 15)
    y0 = np.random.default_rng(0).normal(size=(3, 2 * masses))
    np.testing.assert_allclose(dataset.solution(ts, y0), solve(dataset.vector_field, ts, y0), rtol=0, atol=1e-10)


@pytest.mark.parametrize("masses", [1, 3])
def test_its_energy_is_constant_along_all_data(masses):
    dataset = MassSpring(masses=masses)
    for _, part in dataset.splits(View.trajectories).items():
        energy = dataset.energy(part.ys)
        torch.testing.assert_close(energy, energy[:, :1].expand_as(energy), rtol=0, atol=1e-11)
        assert bool((energy > 0).all())


@pytest.mark.parametrize("masses", [1, 4])
def test_its_field_is_the_symplectic_gradient_of_its_energy(masses):
    dataset = MassSpring(masses=masses, stiffness=1.7)
    y = torch.randn(6, 2 * masses, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(dataset.energy(y).sum(), y)
    by_q, by_p = slope.chunk(2, dim=1)
    torch.testing.assert_close(dataset.vector_field(0.0, y), torch.cat((by_p, -by_q), dim=1))
    np.testing.assert_allclose(dataset.vector_field(0.0, y.detach().numpy()), dataset.vector_field(0.0, y).detach())


def test_one_mass_swings_as_a_cosine():
    ys = MassSpring(stiffness=4.0, start=[[1.0, 0.0]], horizon=3.0, long=0).splits(View.trajectories).train
    torch.testing.assert_close(ys.ys[0, :, 0], torch.cos(2 * ys.ts), rtol=0, atol=1e-14)


def test_its_axes_are_positions_then_momenta():
    assert MassSpring(long=0).spec(View.points).labels == ("q", "p")
    assert MassSpring(masses=2, long=0).spec(View.trajectories).labels == ("q1", "q2", "p1", "p2")


def test_a_start_has_a_position_and_a_momentum_for_each_mass():
    with pytest.raises(ConfigError, match=r"dataset\.start: expected a list of states \[q1, q2, p1, p2\]"):
        MassSpring(masses=2, start=[[1.0, 0.0]])
