"""The leapfrog: symplectic on oscillators, of order 2 everywhere, and only for states that have halves."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from node_runner.errors import ConfigError
from node_runner.models.parts.dynamics import Widened, divergence_exact
from tests.problems import SmallField, differentiable, make_method, nonlinear, oscillator, slope, solve


def pendulum(t: Tensor, y: Tensor) -> Tensor:
    q, p = y.chunk(2, dim=1)
    return torch.cat((p, -torch.sin(q)), dim=1)


def energy(y: Tensor) -> Tensor:
    q, p = y.chunk(2, dim=-1)
    return (p**2 / 2 - torch.cos(q)).sum(-1)


def test_a_step_is_kick_drift_kick():
    q, p, h = 0.7, -0.4, 0.3
    half = p - h / 2 * math.sin(q)
    arrived = q + h * half
    expected = [arrived, half - h / 2 * math.sin(arrived)]
    ts = torch.tensor([0.0, h], dtype=torch.float64)
    ys = solve(make_method("leapfrog"), pendulum, torch.tensor([[q, p]], dtype=torch.float64), ts).ys
    torch.testing.assert_close(ys[1, 0], torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-15)


@pytest.mark.parametrize("problem", [oscillator, nonlinear])
def test_its_error_falls_with_the_square_of_the_step(problem):
    field, y0, exact = problem()
    ts = torch.tensor([0.0, 1.0], dtype=torch.float64)
    sizes = [1 / 32, 1 / 64, 1 / 128]
    errors = [
        float((solve(make_method("leapfrog", step_size=size), field, y0, ts).ys - exact(ts)).abs().max())
        for size in sizes
    ]
    assert slope(sizes, errors) == pytest.approx(2, abs=0.1)


def test_its_energy_error_is_bounded_where_that_of_a_method_of_the_same_order_grows():
    y0 = torch.tensor([[1.5, 0.0], [0.5, 0.5]], dtype=torch.float64)
    ts = torch.arange(0.0, 200.0, 0.2, dtype=torch.float64)

    def drift(name: str, part: slice) -> float:
        energies = energy(solve(make_method(name), pendulum, y0, ts).ys)
        return float((energies - energies[0]).abs()[part].max())

    early, late = slice(0, 100), slice(900, None)
    assert drift("leapfrog", late) < 1.2 * drift("leapfrog", early)
    assert drift("midpoint", late) > 5 * drift("midpoint", early)
    assert drift("leapfrog", late) < 0.1 * drift("midpoint", late)


def test_a_step_keeps_areas():
    ts = torch.tensor([0.0, 0.4], dtype=torch.float64)

    def step(y: Tensor) -> Tensor:
        return solve(make_method("leapfrog"), pendulum, y[None], ts).ys[1, 0]

    jacobian = torch.autograd.functional.jacobian(step, torch.tensor([0.9, -0.2], dtype=torch.float64))
    assert float(torch.linalg.det(jacobian)) == pytest.approx(1.0, abs=1e-14)


def test_it_runs_backward_to_where_it_came_from():
    y0 = torch.tensor([[1.0, 0.3]], dtype=torch.float64)
    ts = torch.linspace(0, 3, 16, dtype=torch.float64)
    end = solve(make_method("leapfrog"), pendulum, y0, ts).ys[-1]
    torch.testing.assert_close(solve(make_method("leapfrog"), pendulum, end, ts.flip(0)).ys[-1], y0, rtol=0, atol=1e-14)


def test_the_gradient_is_that_of_the_computed_numbers():
    ts = torch.linspace(0, 0.6, 4, dtype=torch.float64)

    def end(y0: Tensor, weight: Tensor) -> Tensor:
        return solve(make_method("leapfrog"), lambda t, y: torch.tanh(y @ weight) + t, y0, ts).ys[-1]

    y0, weight = (torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((3, 2), (2, 2)))
    assert torch.autograd.gradcheck(end, (y0, weight))


@pytest.mark.parametrize("adjoint", ["off", "on"])
def test_an_odd_state_is_refused_in_a_sentence(adjoint: str):
    integrate = differentiable(make_method("leapfrog"), adjoint)
    with pytest.raises(ConfigError, match=r"^solver=leapfrog needs a state of two halves \[q, p\], got 3: use solver"):
        integrate(SmallField(3), torch.zeros(4, 3, dtype=torch.float64), torch.tensor([0.0, 1.0]))


def test_integrals_beside_the_state_are_refused_because_they_belong_to_no_half():
    wide = Widened(SmallField(2), (2,), [divergence_exact, divergence_exact])
    with pytest.raises(ConfigError, match=r"^solver=leapfrog takes a state of two halves, not one with integrals: use"):
        differentiable(make_method("leapfrog"))(wide, torch.zeros(4, 4, dtype=torch.float64), torch.tensor([0.0, 1.0]))
