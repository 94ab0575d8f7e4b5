"""Second-order neural ODEs: positions change by their velocity, in any units."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from node_runner.errors import ConfigError
from node_runner.settings import Velocity
from node_runner.views import View
from tests.models.builders import field_factory, make_model, spec


DATA = spec(View.trajectories, (4,), mean=[0.5, 0.0, -1.0, 0.2], std=[2.0, 0.5, 1.0, 3.0])
POSITIONS = spec(View.trajectories, (1,), mean=[1.0], std=[2.0])
TS = torch.linspace(0, 1, 6, dtype=torch.float64)


class Pull(nn.Module):
    """An acceleration of -4 x."""

    time_dependent = False

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        x, _ = y.chunk(2, dim=1)
        return -4 * x


def test_with_given_velocities_positions_change_by_them_in_the_units_of_the_data():
    model = make_model("second_order", DATA, field_factory())
    y = torch.randn(5, 4, dtype=torch.float64)
    torch.testing.assert_close(model.vector_field(torch.tensor(0.0), y)[:, :2], y[:, 2:])


def test_it_solves_the_oscillator():
    data = spec(View.trajectories, (2,), mean=[0.0, 0.0], std=[1.0, 1.0])
    model = make_model("second_order", data, lambda shape, outputs: Pull())
    ys = model(torch.tensor([[1.0, 0.5]], dtype=torch.float64), TS).value[:, 0]
    x = torch.cos(2 * TS) + 0.25 * torch.sin(2 * TS)
    v = -2 * torch.sin(2 * TS) + 0.5 * torch.cos(2 * TS)
    torch.testing.assert_close(ys, torch.stack((x, v), dim=1), rtol=0, atol=1e-6)


def test_learned_velocities_are_where_a_solve_from_positions_begins():
    model = make_model("second_order", POSITIONS, lambda shape, outputs: Pull(), velocity=Velocity.learned)
    y0 = torch.tensor([[1.0], [2.5], [0.0]], dtype=torch.float64)
    z0 = (y0 - 1) / 2
    v0 = model.block.start(z0).detach()
    ys = model(y0, TS).value
    assert ys.shape == (6, 3, 1)
    angle = 2 * TS[:, None, None]
    expected = 2 * (z0 * torch.cos(angle) + v0 / 2 * torch.sin(angle)) + 1
    torch.testing.assert_close(ys.detach(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("data", "velocity"), [(DATA, Velocity.given), (POSITIONS, Velocity.learned)])
def test_every_network_gets_a_gradient(data, velocity: Velocity):
    model = make_model("second_order", data, field_factory(), velocity=velocity)
    y0 = torch.randn(3, *data.shape, dtype=torch.float64)
    model(y0, TS).value.square().sum().backward()
    assert all(float(p.grad.abs().sum()) > 0 for p in model.parameters())


def test_an_odd_state_with_given_velocities_is_refused():
    with pytest.raises(ConfigError, match=r"^model=second_order needs states \[x, v\] of even size.* has 1 axes: use"):
        make_model("second_order", POSITIONS, field_factory())
