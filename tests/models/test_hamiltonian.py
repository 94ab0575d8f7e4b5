"""Hamiltonian networks: what is conserved, in any units, and gradients in solves with and without autograd."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from node_runner.errors import ConfigError
from node_runner.models.parts.dynamics import Widened, divergence_exact
from node_runner.models.parts.energy import Hamiltonian, Separable
from node_runner.views import View
from tests.models.builders import field_factory, make_model, spec
from tests.problems import differentiable, make_method


DATA = spec(View.trajectories, (4,), mean=[0.5, 0.0, -1.0, 0.2], std=[2.0, 0.5, 1.0, 3.0])
TS = torch.linspace(0, 1.5, 7, dtype=torch.float64)
Y0 = torch.tensor([[1.0, 0.3, -0.5, 1.0], [0.1, -0.4, 0.2, 2.0]], dtype=torch.float64)


class Springs(nn.Module):
    """Outputs whose sum is the energy of two springs, q1^2 + 3 q2^2 / 2 + p1^2 / 2 + p2^2, in data's units."""

    time_dependent = False

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.mean, self.std = mean, std
        self.factor = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        weights = torch.tensor([1.0, 1.5, 0.5, 1.0], dtype=torch.float64)
        return self.factor * weights * (z * self.std + self.mean) ** 2


def test_the_field_of_a_known_energy_is_its_equations_of_motion_whatever_the_units():
    model = make_model("hamiltonian", DATA, lambda shape: Springs(DATA.mean, DATA.std))
    found = model.vector_field(torch.tensor(0.0), Y0)
    q1, q2, p1, p2 = Y0.T
    expected = torch.stack((p1, 2 * p2, -2 * q1, -3 * q2), dim=1)
    factor = found[0, 0] / expected[0, 0]  # which the network can learn
    torch.testing.assert_close(found, factor * expected)


@pytest.mark.parametrize("settings", [{}, {"separable": True}], ids=["whole", "separable"])
def test_its_energy_is_conserved_and_its_flow_keeps_volume(settings: dict[str, bool]):
    torch.manual_seed(0)
    model = make_model("hamiltonian", DATA, field_factory(width=16), **settings)
    field = model.block.field
    zero = torch.tensor(0.0, dtype=torch.float64)
    states = (model(Y0, TS).value.detach() - DATA.mean) / DATA.std
    energies = torch.stack([field.energy(zero, y) for y in states]).detach()
    assert float((energies[-1] - energies[0]).abs().max()) < 1e-7
    assert float((energies[0, 0] - energies[0, 1]).abs()) > 1e-3
    wide = Widened(field, (4,), [divergence_exact])
    assert float(wide(zero, wide.begin(Y0))[:, -1].detach().abs().max()) < 1e-14


def test_a_separable_energy_gives_a_field_whose_halves_depend_on_the_other_half_alone():
    field = Hamiltonian(Separable(field_factory()((2,)), field_factory()((2,))).double(), DATA.std)
    jacobian = torch.autograd.functional.jacobian(lambda y: field(torch.tensor(0.0), y[None])[0], Y0[0])
    assert bool((jacobian[:2, :2] == 0).all() and (jacobian[2:, 2:] == 0).all())
    assert bool((jacobian[:2, 2:] != 0).any() and (jacobian[2:, :2] != 0).any())


def test_values_are_the_same_with_and_without_autograd_and_no_graph_is_left():
    model = make_model("hamiltonian", DATA, field_factory())
    with torch.no_grad():
        plain = model(Y0, TS).value
    assert not plain.requires_grad
    torch.testing.assert_close(model(Y0, TS).value.detach(), plain, rtol=0, atol=1e-12)


@pytest.mark.parametrize("adjoint", ["off", "on"])
def test_gradients_are_those_of_finite_differences(adjoint: str):
    torch.manual_seed(1)
    solve = differentiable(make_method("dopri5"), adjoint, rtol=1e-10, atol=1e-10)
    model = make_model("hamiltonian", DATA, field_factory(width=5, depth=1), solve=solve)
    (model(Y0, TS[:3]).value ** 2).sum().backward()
    for parameter in (model.block.field.network.hidden[0].weight, model.block.field.network.out.weight):
        eps, kept = 1e-5, parameter.detach().clone()
        with torch.no_grad():
            sums = []
            for sign in (1, -1):
                parameter[1, 1] = kept[1, 1] + sign * eps
                sums.append(float((model(Y0, TS[:3]).value ** 2).sum()))
            parameter.copy_(kept)
        assert float(parameter.grad[1, 1]) == pytest.approx((sums[0] - sums[1]) / (2 * eps), rel=1e-4, abs=1e-8)


def test_time_may_drive_it():
    model = make_model("hamiltonian", DATA, field_factory(time_dependent=True))
    starts = torch.tensor([0.0, 5.0], dtype=torch.float64)
    assert not torch.allclose(model(Y0, TS, starts).value, model(Y0, TS, starts + 1).value, atol=1e-4)


def test_a_state_without_halves_is_refused():
    with pytest.raises(ConfigError, match=r"^model=hamiltonian needs states \[q, p\] of even size, .* has 3 axes: use"):
        make_model("hamiltonian", spec(View.trajectories, (3,), mean=[0.0] * 3, std=[1.0] * 3), field_factory())
