"""Regularisers: known values, no say in the step size, and silence in evaluation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from node_runner.models.parts.block import ODEBlock
from node_runner.regularisers import REGULARISERS
from node_runner.regularisers.jacobian import Estimate
from node_runner.settings import Trace
from node_runner.views import View
from tests.models.builders import LinearField, accurate_solve, field_factory, make_model, spec


INTEGRALS = [name for name in REGULARISERS.names() if hasattr(REGULARISERS.get(name), "begin")]
TS = torch.tensor([0.0, 0.5, 2.0], dtype=torch.float64)


def block(field: nn.Module, dim: int, *names: str) -> ODEBlock:
    regularisers = {name: REGULARISERS.get(name)() for name in names}
    return ODEBlock(lambda shape: field, accurate_solve(), regularisers, (dim,)).double().train()


def test_the_kinetic_energy_of_a_constant_field_is_its_square_times_the_time():
    field = LinearField([[0.0, 0.0], [0.0, 0.0]], [3.0, -4.0])
    flow = block(field, 2, "kinetic")(torch.randn(5, 2, dtype=torch.float64), TS)
    # (9 + 16) / 2 over two units of time.
    assert float(flow.penalties["kinetic"].detach()) == pytest.approx(25.0, rel=1e-9)


def test_the_kinetic_energy_is_a_mean_over_the_batch():
    field = LinearField([[1.0]])
    y0 = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    flow = block(field, 1, "kinetic")(y0, TS)
    # The integral of (y0 e^t)^2 over [0, 2] is y0^2 (e^4 - 1) / 2.
    expected = (1 + 4) / 2 * (float(torch.exp(torch.tensor(4.0, dtype=torch.float64))) - 1) / 2
    assert float(flow.penalties["kinetic"].detach()) == pytest.approx(expected, rel=1e-6)


def test_the_jacobian_s_norm_of_a_linear_field_is_right_on_average():
    a = torch.tensor([[0.3, -1.0], [0.6, -0.5]], dtype=torch.float64)
    field = LinearField(a.tolist())
    y0 = torch.randn(20_000, 2, dtype=torch.float64)
    regulariser = REGULARISERS.get("jacobian")(trace=Trace.hutchinson)
    integrand = regulariser.begin(y0)
    y = y0.clone().requires_grad_(True)
    values = integrand(torch.tensor(0.0), y, field(torch.tensor(0.0), y)).detach()
    standard_error = float(values.std()) / len(values) ** 0.5
    assert standard_error > 0
    assert float(values.mean()) == pytest.approx(float(a.square().sum()) / 2, abs=4 * standard_error)


def test_the_jacobian_s_probe_stays_fixed_within_a_solve_and_is_drawn_anew_for_the_next():
    field = LinearField([[0.3, -1.0], [0.6, -0.5]])
    y0 = torch.randn(4, 2, dtype=torch.float64)
    regulariser = REGULARISERS.get("jacobian")(trace=Trace.hutchinson)
    integrands = [regulariser.begin(y0), regulariser.begin(y0)]
    y = y0.clone().requires_grad_(True)
    first, again = (integrands[0](torch.tensor(t), y, field(torch.tensor(t), y)) for t in (0.0, 1.0))
    other = integrands[1](torch.tensor(0.0), y, field(torch.tensor(0.0), y))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_jacobian_s_norm_is_exact_up_to_four_dimensions():
    y = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    values = REGULARISERS.get("jacobian")().begin(y)(torch.tensor(0.0), y, torch.sin(y) + y.roll(1, dims=1))
    torch.testing.assert_close(values, (y.cos().square() + 1).mean(dim=1))
    wide = REGULARISERS.get("jacobian")().begin(torch.randn(3, 5))
    assert isinstance(wide, Estimate)


@pytest.mark.parametrize("name", INTEGRALS)
def test_an_image_is_a_state_like_any_other(name: str):
    regulariser = REGULARISERS.get(name)()
    y = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    values = regulariser.begin(y.detach())(torch.tensor(0.0), y, torch.sin(y))
    assert values.shape == (2,)
    assert bool((values > 0).all())


@pytest.mark.parametrize("name", REGULARISERS.names())
def test_a_regulariser_does_not_steer_the_step_size(name: str):
    torch.manual_seed(1)
    field = field_factory("mlp", width=16)((3,)).double()
    y0 = torch.randn(4, 3, dtype=torch.float64)
    plain = block(field, 3)(y0, TS)
    regularised = block(field, 3, name)(y0, TS)
    assert regularised.stats.nfe_forward == plain.stats.nfe_forward
    assert regularised.stats.accepted == plain.stats.accepted
    torch.testing.assert_close(regularised.ys, plain.ys, rtol=0, atol=1e-12)
    assert set(regularised.penalties) == {name}


@pytest.mark.parametrize("name", REGULARISERS.names())
def test_a_regulariser_is_silent_in_evaluation(name: str):
    field = field_factory("mlp", width=16)((3,)).double()
    y0 = torch.randn(4, 3, dtype=torch.float64)
    quiet = block(field, 3, name).eval()(y0, TS)
    assert quiet.penalties == {}
    assert torch.equal(quiet.ys, block(field, 3)(y0, TS).ys)


@pytest.mark.parametrize("name", REGULARISERS.names())
def test_a_regulariser_changes_nothing_of_a_flow_s_density_or_its_steps(name: str):
    data = spec(View.points, (2,), mean=[0.0, 0.0], std=[1.0, 1.0])
    x = torch.randn(6, 2, dtype=torch.float64)
    outputs = []
    for regularisers in ({}, {name: REGULARISERS.get(name)()}):
        torch.manual_seed(0)
        model = make_model("cnf", data, field_factory("concatsquash", width=8), regularisers=regularisers)
        outputs.append(model.train()(x))
        assert model.eval()(x).penalties == {}
    plain, regularised = outputs
    torch.testing.assert_close(regularised.value, plain.value, rtol=0, atol=1e-10)
    assert regularised.solves[0].nfe_forward == plain.solves[0].nfe_forward
    assert (set(plain.penalties), set(regularised.penalties)) == (set(), {name})


def test_several_regularisers_are_told_apart():
    field = LinearField([[0.0, 0.0], [0.0, 0.0]], [3.0, -4.0])

    class Nonlinear(nn.Module):
        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return field(t, y) + 0 * y

    flow = block(Nonlinear(), 2, "jacobian", "kinetic")(torch.randn(5, 2, dtype=torch.float64), TS)
    assert list(flow.penalties) == ["jacobian", "kinetic"]
    assert float(flow.penalties["jacobian"].detach()) == pytest.approx(0.0, abs=1e-12)
    assert float(flow.penalties["kinetic"].detach()) == pytest.approx(25.0, rel=1e-9)


@pytest.mark.parametrize("name", INTEGRALS)
def test_the_penalty_has_a_gradient_that_finite_differences_confirm(name: str):
    field = field_factory("mlp", width=4)((2,)).double()
    y0, eps = torch.randn(3, 2, dtype=torch.float64), 1e-5
    weight = field.hidden[0].weight

    def penalty() -> Tensor:
        torch.manual_seed(5)  # the same probe each time
        return block(field, 2, name)(y0, TS).penalties[name]

    penalty().backward()
    with torch.no_grad():
        weight[0, 0] += eps
        above = float(penalty())
        weight[0, 0] -= 2 * eps
        below = float(penalty())
    assert float(weight.grad[0, 0]) == pytest.approx((above - below) / (2 * eps), rel=1e-3, abs=1e-6)
