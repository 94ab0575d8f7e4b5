"""Continuous normalising flows: exact densities, traces, inversion, and total probability."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from node_runner.models.cnf import CNF, standard_normal
from node_runner.settings import Activation, Noise, Trace
from node_runner.views import View
from tests.models.builders import LinearField, field_factory, make_model, spec
from tests.problems import METHODS, OF_THE_REFERENCE, differentiable, make_method


PLANE = spec(View.points, (2,), mean=[1.0, -2.0], std=[0.5, 3.0])
UNIT = spec(View.points, (2,), mean=[0.0, 0.0], std=[1.0, 1.0])
A = [[0.3, -1.0], [0.6, -0.5]]


def flow(
    data=PLANE, make_field: Callable[[tuple[int, ...]], nn.Module] | None = None, adjoint: str = "off", **settings
) -> CNF:
    solve = differentiable(METHODS["dopri5"], adjoint, rtol=1e-7, atol=1e-7)
    model = make_model("cnf", data, make_field or field_factory("concatsquash", width=16), solve=solve, **settings)
    assert isinstance(model, CNF)
    return model


def linear_flow(**settings) -> CNF:
    return flow(make_field=lambda shape: LinearField(A, [0.2, -0.1]), **settings)


def points(count: int = 7) -> Tensor:
    return torch.randn(count, 2, dtype=torch.float64) * PLANE.std + PLANE.mean


def exact_log_prob(x: Tensor, end: float = 1.0) -> Tensor:
    """A linear field's flow is affine, so that it carries the normal base to a normal density of the data."""
    a, b = torch.tensor(A, dtype=torch.float64), torch.tensor([0.2, -0.1], dtype=torch.float64)
    power = torch.linalg.matrix_exp(a * end)
    shift = torch.linalg.solve(a, (power - torch.eye(2, dtype=torch.float64)) @ b)
    # z(T) = power z + shift is standard normal: z is normal about -power^-1 shift.
    inverse = torch.linalg.inv(power)
    scale = torch.diag(PLANE.std)
    mean = PLANE.mean + scale @ (-inverse @ shift)
    covariance = scale @ inverse @ inverse.T @ scale.T
    return torch.distributions.MultivariateNormal(mean, covariance).log_prob(x)


@pytest.mark.parametrize("trace", [Trace.auto, Trace.exact], ids=lambda trace: trace.value)
@pytest.mark.parametrize("end", [1.0, 0.4])
def test_the_density_of_a_linear_flow_is_the_normal_one_that_it_must_be(end: float, trace: Trace):
    x = points()
    ours = linear_flow(end_time=end, trace=trace).log_prob(x)
    torch.testing.assert_close(ours, exact_log_prob(x, end), rtol=0, atol=1e-5)


def test_hutchinson_s_density_of_a_linear_flow_is_right_on_average():
    model = linear_flow(trace=Trace.hutchinson)
    x = points(1).expand(4000, 2)
    with torch.no_grad():
        estimates = model.log_prob(x)
    standard_error = float(estimates.std()) / math.sqrt(len(x))
    assert standard_error > 0
    assert float(estimates.mean()) == pytest.approx(float(exact_log_prob(x[:1])), abs=4 * standard_error)


@pytest.mark.parametrize("noise", list(Noise), ids=lambda noise: noise.value)
def test_a_probe_stays_fixed_within_a_solve_and_is_drawn_anew_for_the_next(noise: Noise):
    # For a linear field e^T A e does not depend on the state: the integral shows one e for the whole solve.
    model = flow(UNIT, lambda shape: LinearField(A), trace=Trace.hutchinson, noise=noise)
    a = torch.tensor(A, dtype=torch.float64)
    x = torch.randn(200, 2, dtype=torch.float64)
    with torch.no_grad():
        integrals = [(model.log_prob(x) - standard_normal(model.to_base(x))) for _ in range(2)]
    assert not torch.allclose(integrals[0], integrals[1], atol=1e-3)
    if noise is Noise.rademacher:
        possible = torch.tensor([float(e @ a @ e) for e in torch.tensor([[1.0, 1.0], [1.0, -1.0]]).double()]).double()
        nearest = (integrals[0][:, None] - possible).abs().min(dim=1).values
        assert float(nearest.max()) < 1e-5
    else:
        assert len(integrals[0].round(decimals=4).unique()) > 100


def test_the_trace_is_exact_up_to_four_dimensions_unless_told_otherwise():
    for dim, expected in ((2, Trace.exact), (4, Trace.exact), (5, Trace.hutchinson)):
        data = spec(View.points, (dim,), mean=[0.0] * dim, std=[1.0] * dim)
        assert flow(data).trace is expected
        assert flow(data, trace=Trace.exact).trace is Trace.exact
        assert flow(data, trace=Trace.hutchinson).trace is Trace.hutchinson


def test_an_exact_density_is_the_same_every_time_in_training_and_in_evaluation():
    model, x = flow(), points()
    first = model.train().log_prob(x)
    assert torch.equal(model.log_prob(x), first)
    assert torch.equal(model.eval().log_prob(x), first)
    with torch.no_grad():
        assert torch.equal(model.log_prob(x), first)


def test_going_to_the_base_and_back_gives_the_data():
    model, x = flow(), points()
    z = model.to_base(x)
    torch.testing.assert_close(model.from_base(z), x, rtol=0, atol=1e-4)
    torch.testing.assert_close(model.to_base(model.from_base(z)), z, rtol=0, atol=1e-4)


@pytest.mark.parametrize("field", ["mlp", "concatsquash"])
def test_the_density_of_a_random_flow_integrates_to_one(field: str):
    solve = differentiable(METHODS["dopri5"], "off", rtol=1e-4, atol=1e-4)
    model = make_model("cnf", UNIT, field_factory(field, width=8), solve=solve)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)  # far enough from the identity to be worth a test
    axis = torch.linspace(-9, 9, 91, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        density = model.log_prob(grid).exp()
    assert float(density.sum()) * float(axis[1] - axis[0]) ** 2 == pytest.approx(1.0, abs=5e-3)
    assert float((density - standard_normal(grid).exp()).abs().max()) > 1e-2


def test_samples_have_the_moments_of_a_linear_flow_s_density(generator: torch.Generator):
    model = linear_flow()
    x = model.sample(20_000, generator=generator)
    grid = torch.tensor(A, dtype=torch.float64)
    inverse = torch.linalg.matrix_exp(-grid)
    covariance = torch.diag(PLANE.std) @ inverse @ inverse.T @ torch.diag(PLANE.std)
    torch.testing.assert_close(x.T.cov(), covariance, rtol=0.05, atol=0.05)
    assert not x.requires_grad


def test_samples_repeat_with_the_generator_and_a_path_ends_in_them():
    model = flow()
    draws = [model.sample(5, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    path = model.path(5, 4, generator=torch.Generator().manual_seed(1))
    assert path.shape == (4, 5, 2)
    torch.testing.assert_close(path[-1], draws[0], rtol=0, atol=1e-5)
    base = torch.randn(5, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(path[0], base * PLANE.std + PLANE.mean, rtol=0, atol=1e-12)


def test_the_density_of_what_was_sampled_is_that_of_its_base_point():
    model = linear_flow()
    x = model.sample(6, generator=torch.Generator().manual_seed(0))
    base = torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(model.to_base(x), base, rtol=0, atol=1e-5)
    trace = A[0][0] + A[1][1]
    expected = standard_normal(base) + trace - PLANE.std.log().sum()
    torch.testing.assert_close(model.log_prob(x), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("adjoint", OF_THE_REFERENCE)
def test_the_gradient_of_the_likelihood_agrees_with_finite_differences(adjoint: str):
    model, x, eps = flow(adjoint=adjoint), points(3), 1e-5
    weight = model.field.hidden[0].linear.weight
    model.log_prob(x).mean().backward()
    with torch.no_grad():
        weight[0, 1] += eps
        above = float(model.log_prob(x).mean())
        weight[0, 1] -= 2 * eps
        below = float(model.log_prob(x).mean())
    assert float(weight.grad[0, 1]) == pytest.approx((above - below) / (2 * eps), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("field", ["mlp", "conv"])
def test_images_have_a_density_in_the_units_of_grey_levels(field: str):
    even = torch.full((16, 17), 1 / 17, dtype=torch.float64)
    data = spec(View.points, (16,), mean=0.5, std=0.3, levels=17, image=(1, 4, 4), frequencies=even)
    solve = differentiable(make_method("rk4", step_size=0.1), "off")
    model = make_model("cnf", data, field_factory(field, activation=Activation.tanh), solve=solve)
    assert model.shape == ((1, 4, 4) if field == "conv" else (16,))
    x = torch.rand(3, 16, dtype=torch.float64) * 17
    assert model.log_prob(x).shape == (3,)
    samples = model.sample(2)
    assert samples.shape == (2, 16)
    assert samples.min() >= 0
    assert samples.max() <= 17


def test_the_standard_normal_is_that_of_torch():
    z = torch.randn(5, 3, dtype=torch.float64)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)
    torch.testing.assert_close(standard_normal(z), expected, rtol=0, atol=1e-12)
