"""radau5: right on the stiff problems that everybody knows, in few steps, with the gradient of what it computes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor, nn

from node_runner.engines.extended.adaptive_implicit import collocation
from node_runner.engines.extended.functions import odeint
from node_runner.errors import ConfigError, SolveFailed
from node_runner.tableaux import IMPLICIT
from node_runner.types import Tableau
from tests.problems import SmallField, differentiable, make_method, nonlinear, slope, solve, stepping
from tests.solvers.test_implicit import flat_gradient, prothero_robinson
from tests.solvers.test_tsit5 import holds


def van_der_pol(y, mu: float = 1000.0):
    return y[..., 1], mu * (1 - y[..., 0] ** 2) * y[..., 1] - y[..., 0]


def robertson(y):
    a, b, c = 0.04 * y[..., 0], 1e4 * y[..., 1] * y[..., 2], 3e7 * y[..., 1] ** 2
    return b - a, a - b - c, c


def against_scipy(field, y0: list[float], times: list[float], rtol: float, atol: float) -> float:
    """The largest error relative to scipy's Radau at a hundred to a thousand times the accuracy."""
    exact = solve_ivp(
        lambda t, y: np.array(field(y)), (0, times[-1]), y0, "Radau", t_eval=times, rtol=1e-9, atol=1e-12
    ).y.T
    ts = torch.tensor([0.0, *times], dtype=torch.float64)
    ys = solve(
        make_method("radau5"), lambda t, y: torch.stack(field(y), dim=-1), torch.tensor([y0]).double(), ts,
        rtol=rtol, atol=atol,
    ).ys[1:, 0]  # fmt: skip
    return float((ys / torch.as_tensor(exact) - 1).abs().max())


def test_van_der_pol_at_mu_1000_is_that_of_scipy_to_1e_4_in_every_component():
    # The jump is at t = 807: one time is in the fall behind it.
    assert against_scipy(van_der_pol, [2.0, 0.0], [1.0, 400.0, 800.0, 810.0], 1e-5, 1e-8) < 1e-4


def test_robertson_is_that_of_scipy_to_1e_4_in_every_component():
    assert against_scipy(robertson, [1.0, 0.0, 0.0], [10.0**k for k in range(-4, 6, 3)], 1e-6, 1e-14) < 1e-4


def test_the_embedded_solution_is_of_order_three():
    tableau = IMPLICIT["radau5"]
    weights = [b + e for b, e in zip(tableau.b, tableau.error, strict=True)]
    start = -sum(tableau.error)
    widened = Tableau((0.0, *tableau.c), ((0.0,) * 4, *((0.0, *row) for row in tableau.a)), (start, *weights))
    assert holds(widened, 3)
    assert not holds(widened, 4)
    eigenvalues = torch.linalg.eigvals(torch.tensor(tableau.a, dtype=torch.float64))
    assert float((eigenvalues - start).abs().min()) < 1e-14


def test_the_dense_output_is_exact_on_cubics_and_of_order_three_between_steps():
    c = torch.tensor(IMPLICIT["radau5"].c, dtype=torch.float64)
    x = 0.3
    for power in (0, 1, 2):
        weights = collocation(c) @ x ** torch.arange(1.0, 4.0, dtype=torch.float64)
        assert float(weights @ c**power) == pytest.approx(x ** (power + 1) / (power + 1), abs=1e-14)
    field, y0, exact = nonlinear()
    ts = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    sizes = [0.4, 0.2, 0.08]  # 0.5 is within a step of each
    errors = [
        float((solve(stepping("radau5", size), field, y0, ts).ys[1] - exact(ts)[1]).abs().max()) for size in sizes
    ]
    assert slope(sizes, errors) > 3.2


@pytest.mark.parametrize("rate", [1e2, 1e5, 1e8])
def test_the_steps_do_not_depend_on_the_stiffness(rate: float):
    ts = torch.linspace(0.0, 2.0, 11, dtype=torch.float64)
    solution = solve(
        make_method("radau5"), prothero_robinson(rate), torch.ones(3, 1).double(), ts, rtol=1e-5, atol=1e-5
    )
    truth = torch.cos(ts)[:, None, None]
    torch.testing.assert_close(solution.ys, truth.expand_as(solution.ys), rtol=0, atol=2e-5)
    assert solution.stats.accepted + solution.stats.rejected < 40


def test_an_explicit_method_is_bound_by_stability_where_this_one_is_not():
    ts, y0 = torch.tensor([0.0, 2.0], dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    explicit = solve(make_method("dopri5"), prothero_robinson(1e3), y0, ts, rtol=1e-4, atol=1e-4).stats
    implicit = solve(make_method("radau5"), prothero_robinson(1e3), y0, ts, rtol=1e-4, atol=1e-4).stats
    assert implicit.nfe_forward < explicit.nfe_forward / 5


def test_a_tighter_tolerance_gives_a_smaller_error():
    field, y0, exact = nonlinear()
    ts = torch.tensor([0.0, 0.7, 2.0], dtype=torch.float64)
    errors = [
        float((solve(make_method("radau5"), field, y0, ts, rtol=tol, atol=tol).ys - exact(ts)).abs().max())
        for tol in (1e-3, 1e-5, 1e-7)
    ]
    assert all(error < tol for error, tol in zip(errors, (1e-3, 1e-5, 1e-7), strict=True))


def test_float32_is_served_in_both_directions():
    ts = torch.linspace(1.0, 0.0, 5)
    ys = solve(make_method("radau5"), lambda t, y: 3 * y, torch.ones(4, 2), ts, rtol=1e-4, atol=1e-6).ys
    assert ys.dtype is torch.float32
    torch.testing.assert_close(ys[-1], torch.full((4, 2), math.exp(-3)), rtol=0, atol=1e-4)


class Stiff(nn.Module):
    """Two decays towards cos t, the faster of them at 6000 a unit of time."""

    def __init__(self) -> None:
        super().__init__()
        self.rates = nn.Parameter(torch.tensor([2.0, 5.3], dtype=torch.float64))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return -torch.exp(self.rates) * (y**3 - torch.cos(t)) * 10


@pytest.mark.parametrize("field", [SmallField(dim=2, width=3), Stiff()], ids=lambda field: type(field).__name__)
def test_the_gradient_is_that_of_the_computed_numbers_to_1e_8(field: nn.Module):
    ts = torch.tensor([0.0, 0.13, 0.3], dtype=torch.float64)  # 0.13 is within a step
    y0 = torch.tensor([[1.0, 0.8], [0.6, 0.9]], dtype=torch.float64, requires_grad=True)
    solve_ = differentiable(stepping("radau5", 0.1, max_iters=30), "off")
    computed, differences = flat_gradient(field, y0, ts, solve_, eps=1e-3)
    torch.testing.assert_close(computed, differences, rtol=0, atol=1e-8)


def test_with_steps_of_its_own_choice_the_gradient_is_that_of_the_flow_within_the_tolerance():
    ts = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
    y0 = torch.tensor([[0.5, 2.0]], dtype=torch.float64, requires_grad=True)
    # y' = -k y^3 is y0 / sqrt(1 + 2 k t y0^2), stiff where k = 2000.
    rate = torch.tensor([1.0, 2000.0], dtype=torch.float64, requires_grad=True)
    solve_ = differentiable(make_method("radau5"), "off", rtol=1e-6, atol=1e-8)
    ys = solve_(lambda t, y: -rate * y**3, y0, ts).ys
    exact = y0 / torch.sqrt(1 + 2 * rate * ts[:, None, None] * y0**2)
    for ours, true in zip(torch.autograd.grad(ys.sum(), (y0, rate)), torch.autograd.grad(exact.sum(), (y0, rate)),
                          strict=True):  # fmt: skip
        torch.testing.assert_close(ours, true, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("adjoint", ["on", "seminorm"])
def test_the_continuous_adjoint_is_served(adjoint: str):
    ts = torch.tensor([0.0, 0.2, 1.0], dtype=torch.float64)
    gradients = []
    for name in ("off", adjoint):
        field, y0 = SmallField(), torch.ones(5, 3, dtype=torch.float64, requires_grad=True)
        solution = differentiable(make_method("radau5"), name, rtol=1e-7, atol=1e-8)(field, y0, ts)
        gradients.append(torch.autograd.grad(solution.ys[-1].sum(), [y0, *field.parameters()]))
        solution.stats.stop_backward()
        assert (solution.stats.accepted_backward > 0) == (name != "off")
    for discrete, continuous in zip(*gradients, strict=True):
        torch.testing.assert_close(discrete, continuous, rtol=1e-4, atol=1e-5)


def test_an_attempt_whose_equations_have_no_solution_is_taken_again_with_half_the_step():
    # y' = y^2 from 1 is 1 / (1 - t); the equations of a step as long as the first have no real solution.
    ts, y0 = torch.tensor([0.0, 0.9], dtype=torch.float64), torch.ones(2, 1, dtype=torch.float64)
    solution = solve(make_method("radau5", first_step=8.0), lambda t, y: y**2, y0, ts, rtol=1e-6, atol=1e-6)
    assert solution.stats.rejected >= 3
    torch.testing.assert_close(solution.ys[-1], torch.full((2, 1), 10.0).double(), rtol=1e-4, atol=0)


def test_it_gives_up_in_one_sentence_where_the_step_may_be_no_smaller():
    ts, y0 = torch.tensor([0.0, 8.0], dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    with pytest.raises(SolveFailed, match=r"^radau5 stopped at t=0: Newton's method .* \(step 8.0e\+00"):
        solve(stepping("radau5", 8.0), lambda t, y: y**2, y0, ts)


def test_its_budget_of_attempts_is_kept():
    ts, y0 = torch.tensor([0.0, 100.0], dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64)
    with pytest.raises(SolveFailed, match=r"radau5 spent its budget of solver.max_steps=10"):
        solve(make_method("radau5", max_steps=10), lambda t, y: torch.stack((y[:, 1], -y[:, 0]), dim=1), y0, ts)


def test_limits_that_contradict_each_other_are_refused():
    with pytest.raises(ConfigError, match=r"solver.max_step: expected at least solver.min_step=1, got 0.5"):
        make_method("radau5", min_step=1.0, max_step=0.5)


def test_coupled_samples_are_solved_together():
    y0, ts = torch.randn(4, 3, dtype=torch.float64), torch.tensor([0.0, 1.0], dtype=torch.float64)

    def coupled(t: Tensor, y: Tensor) -> Tensor:
        return torch.tanh(y) - 50 * y.mean(dim=0)

    flat = solve(make_method("radau5"), lambda t, y: coupled(t, y.view(4, 3)).view(-1), y0.view(-1), ts).ys
    torch.testing.assert_close(solve(make_method("radau5"), coupled, y0, ts).ys.view(2, 12), flat, rtol=0, atol=1e-10)


def test_complex_and_tupled_states_and_events_are_served():
    ts = torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)
    y0 = torch.tensor([1 + 1j, 2 - 1j], dtype=torch.complex128)
    ys = odeint(lambda t, y: (-0.5 + 2j) * y, y0, ts, method="radau5", rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ys[-1], y0 * torch.exp(torch.tensor(0.5 - 2j)), rtol=0, atol=1e-5)
    start = (torch.tensor(10.0).double(), torch.tensor(0.0).double())
    event, _ = odeint(
        lambda t, y: (y[1], -9.8 * torch.ones_like(y[1])), start, torch.tensor([0.0, 1.0]).double(), method="radau5",
        rtol=1e-8, atol=1e-8, event_fn=lambda t, y: y[0],
    )  # fmt: skip
    assert float(event) == pytest.approx(math.sqrt(20 / 9.8), abs=1e-6)


def test_its_coefficients_are_those_of_the_method_with_fixed_steps():
    assert replace(IMPLICIT["radau5"], error=()) == IMPLICIT["radauIIA5"]
