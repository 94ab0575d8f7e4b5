"""Flow matching: its objective at known fields, its pairing, and the density that it shares with the cnf."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from node_runner.errors import ConfigError
from node_runner.models.flow_matching import FlowMatching, optimally_paired
from node_runner.regularisers import REGULARISERS
from node_runner.settings import Pairing
from node_runner.views import View
from tests.models.builders import field_factory, make_model, spec


PLANE = spec(View.points, (2,), mean=[1.0, -2.0], std=[0.5, 3.0])
WIDTH = 0.3


class Gaussian(nn.Module):
    """The velocity that carries N(0, s^2) at t = 0 to N(0, 1) at t = T with independent pairs, in closed form.

    With a = t / T, z = (1 - a) x + a e is normal with variance v = (1 - a)^2 s^2 + a^2, and
    E[e - x | z] = (a - (1 - a) s^2) z / v.
    """

    time_dependent = True

    def __init__(self, end: float) -> None:
        super().__init__()
        self.end, self.gain = end, nn.Parameter(torch.ones(()))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        a = (t / self.end).reshape(-1, 1)
        return self.gain * (a - (1 - a) * WIDTH**2) * y / ((1 - a) ** 2 * WIDTH**2 + a**2) / self.end


def model(make_field=None, **settings) -> FlowMatching:
    built = make_model("flow_matching", PLANE, make_field or field_factory("concatsquash", width=16), **settings)
    assert isinstance(built, FlowMatching)
    return built


def gaussian_points(count: int) -> Tensor:
    return PLANE.mean + PLANE.std * WIDTH * torch.randn(count, 2, dtype=torch.float64)


@pytest.mark.parametrize("end", [1.0, 0.4])
def test_the_field_that_minimises_the_objective_has_the_density_of_the_data(end: float):
    torch.manual_seed(0)
    built, x = model(lambda shape: Gaussian(end), end_time=end), gaussian_points(50_000)
    expected = torch.distributions.Normal(PLANE.mean, PLANE.std * WIDTH).log_prob(x[:5]).sum(1)
    torch.testing.assert_close(built.eval()(x[:5]).value, expected, rtol=0, atol=1e-5)
    objective = built.train()(x).objective
    objective.backward()
    # At the minimum the slope along the gain is zero; the curvature there is of order one.
    assert abs(float(built.field.gain.grad)) < 0.05 / end**2


def test_a_field_that_cannot_be_told_the_time_is_refused():
    with pytest.raises(ConfigError, match=r"use field=concatsquash, or field\.time_dependent=true"):
        model(field_factory("mlp"))


def test_training_solves_nothing_and_evaluation_is_that_of_the_cnf():
    torch.manual_seed(0)
    built, x = model(), gaussian_points(6)
    rival = make_model("cnf", PLANE, field_factory("concatsquash", width=16))
    rival.load_state_dict(built.state_dict())
    trained = built.train()(x)
    assert trained.solves == [] and bool(trained.value.isnan().all())
    torch.testing.assert_close(built.log_prob(x), rival.log_prob(x))  # also while training
    assert torch.equal(built.eval()(x).value, rival.eval()(x).value)
    draws = [flow.sample(4, generator=torch.Generator().manual_seed(0)) for flow in (built, rival)]
    assert torch.equal(*draws)
    torch.testing.assert_close(built.from_base(built.to_base(x)), x, rtol=0, atol=1e-4)


def test_the_optimal_pairs_are_the_shortest():
    data, base = torch.randn(6, 2, dtype=torch.float64), torch.randn(6, 2, dtype=torch.float64)
    paired = optimally_paired(data, base)
    assert sorted(map(tuple, paired.tolist())) == sorted(map(tuple, base.tolist()))
    cost = float((paired - data).square().sum())
    shuffles = (base[torch.randperm(6)] for _ in range(200))
    assert all(cost <= float((other - data).square().sum()) + 1e-12 for other in shuffles)


def test_optimal_pairing_lowers_the_objective_of_a_field_that_stands_still():
    class Still(nn.Module):
        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return 0 * y

    x = gaussian_points(64)
    losses = {}
    for pairing in Pairing:
        torch.manual_seed(1)
        losses[pairing] = float(model(lambda shape: Still(), pairing=pairing).train()(x).objective.detach())
    assert losses[Pairing.optimal] < losses[Pairing.independent]


@pytest.mark.parametrize("pairing", list(Pairing), ids=lambda pairing: pairing.value)
def test_the_gradient_of_the_objective_agrees_with_finite_differences(pairing: Pairing):
    built, x, eps = model(pairing=pairing).train(), gaussian_points(5), 1e-6
    weight = built.field.hidden[0].linear.weight

    def objective() -> Tensor:
        torch.manual_seed(3)
        return built(x).objective

    objective().backward()
    with torch.no_grad():
        weight[0, 1] += eps
        above = float(objective().detach())
        weight[0, 1] -= 2 * eps
        below = float(objective().detach())
    assert float(weight.grad[0, 1]) == pytest.approx((above - below) / (2 * eps), rel=1e-5, abs=1e-8)


def test_a_regulariser_is_refused_because_there_is_no_solve():
    with pytest.raises(ConfigError, match=r"use regulariser=\[\] or model=cnf"):
        model(regularisers={"kinetic": REGULARISERS.get("kinetic")()})
