"""Implicit methods: stable where explicit ones are not, exact in their gradients, clear when they give up."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from node_runner.engines.extended.functions import odeint
from node_runner.engines.extended.jacobian import blocks_of
from node_runner.errors import SolveFailed
from tests.problems import (
    EXPLICIT_FIXED,
    IMPLICIT,
    CountingField,
    SmallField,
    differentiable,
    has_option,
    make_method,
    solve,
)


L_STABLE = ["implicit_euler", "radauIIA3", "radauIIA5", "sdirk2", "trbdf2"]
"""Their stability function vanishes at infinity; the others' is of size one there."""

RUNGE_KUTTA = [name for name in EXPLICIT_FIXED if not has_option(name, "max_order")]


def prothero_robinson(rate: float):
    """y' = -rate (y - cos t) - sin t: the solution is cos t, with a fast transient beside it."""

    def field(t: Tensor, y: Tensor) -> Tensor:
        return -rate * (y - torch.cos(t)) - torch.sin(t)

    return field


def van_der_pol(t: Tensor, y: Tensor) -> Tensor:
    """Stiffness 1000, in the scaling of Hairer and Wanner's example."""
    x, v = y[:, 0], y[:, 1]
    return torch.stack((v, 1e3 * ((1 - x**2) * v - x)), dim=1)


@pytest.mark.parametrize("name", IMPLICIT)
def test_long_steps_on_a_stiff_field_stay_near_its_solution(name: str):
    ts = torch.linspace(0.0, 2.0, 11, dtype=torch.float64)
    y0 = torch.ones(3, 1, dtype=torch.float64)
    ys = solve(make_method(name), prothero_robinson(1e6), y0, ts).ys
    torch.testing.assert_close(ys, torch.cos(ts)[:, None, None].expand_as(ys), rtol=0, atol=0.03)


@pytest.mark.parametrize("name", RUNGE_KUTTA)
def test_explicit_methods_blow_up_at_the_same_steps(name: str):
    ts = torch.linspace(0.0, 2.0, 11, dtype=torch.float64)
    ys = solve(make_method(name), prothero_robinson(1e6), torch.ones(3, 1, dtype=torch.float64), ts).ys
    # The solution is a fixed point of the stiff part to rounding at best: any error grows 2e5-fold a step.
    assert float(ys[-1].abs().max()) > 1e6


@pytest.mark.parametrize("name", IMPLICIT)
def test_l_stable_methods_damp_a_fast_transient_at_once_and_the_others_ring(name: str):
    ts = torch.tensor([0.0, 1.0], dtype=torch.float64)
    end = solve(make_method(name), lambda t, y: -1e6 * y, torch.ones(1, 1, dtype=torch.float64), ts).ys[-1]
    left = abs(float(end))
    assert left < 1e-5 if name in L_STABLE else 0.99 < left < 1.0


@pytest.mark.parametrize("name", ["implicit_euler", "radauIIA5", "sdirk2", "trbdf2"])
def test_van_der_pol_s_slow_branch_is_followed_with_few_steps(name: str):
    y0 = torch.tensor([[2.0, -0.66], [1.8, -0.8]], dtype=torch.float64)
    ts = torch.tensor([0.0, 0.5], dtype=torch.float64)
    truth = solve(make_method("radauIIA5", step_size=0.002), van_der_pol, y0, ts).ys[-1]
    ys = solve(make_method(name, step_size=0.02), van_der_pol, y0, ts).ys[-1]
    torch.testing.assert_close(ys[:, 0], truth[:, 0], rtol=0, atol=0.1 if name == "implicit_euler" else 2e-3)


@pytest.mark.parametrize("name", ["radauIIA5", "trapezoid", "sdirk2"])
def test_samples_are_solved_apart_and_coupled_states_together(name: str):
    ts = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    y0 = torch.randn(4, 3, dtype=torch.float64)

    def coupled(t: Tensor, y: Tensor) -> Tensor:
        return torch.tanh(y) - y.mean(dim=0)  # as batch normalisation would

    flat = solve(make_method(name, step_size=0.25), lambda t, y: coupled(t, y.view(4, 3)).view(-1), y0.view(-1), ts)
    together = solve(make_method(name, step_size=0.25), coupled, y0, ts)
    torch.testing.assert_close(together.ys.view(3, 12), flat.ys, rtol=0, atol=1e-12)


def test_the_jacobian_is_in_blocks_where_samples_are_independent_and_whole_where_not():
    y = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert blocks_of(torch.tanh(y), y, None).values.shape == (4, 3, 3)
    assert blocks_of(torch.tanh(y) - y.mean(dim=0), y, None).values.shape == (1, 12, 12)
    # Numbers that nothing depends on take no part.
    only = blocks_of(y[:, :1].sin().sum() * torch.ones_like(y), y, None)
    assert only.values.shape == (1, 4, 4)
    assert torch.equal(only.numbers[0], torch.tensor([0, 3, 6, 9]))
    # A field of time alone has no Jacobian.
    assert not blocks_of(torch.ones_like(y), y, None).values.any()


@pytest.mark.parametrize("name", IMPLICIT)
def test_a_field_of_time_alone_is_integrated(name: str):
    ts = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    ys = solve(
        make_method(name, step_size=0.01), lambda t, y: torch.cos(t).expand_as(y), torch.zeros(2, 2).double(), ts
    )
    torch.testing.assert_close(ys.ys[-1], torch.sin(ts[-1]).expand(2, 2), rtol=0, atol=6e-3)


def flat_gradient(field: nn.Module, y0: Tensor, ts: Tensor, solve_, eps: float) -> tuple[Tensor, Tensor]:
    """The gradient of a loss by autograd, and by central differences of fourth order."""
    tensors = [y0, *field.parameters()]

    def loss() -> Tensor:
        ys = solve_(field, y0, ts).ys
        return (torch.linspace(-1, 2, ys.numel(), dtype=ys.dtype).view_as(ys) * ys.sin()).sum()

    computed = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss(), tensors)])
    differences = []
    with torch.no_grad():
        for tensor in tensors:
            flat = tensor.view(-1)
            for i in range(len(flat)):
                kept = flat[i].clone()
                values = []
                for k in (-2, -1, 1, 2):
                    flat[i] = kept + k * eps
                    values.append(float(loss()))
                flat[i] = kept
                differences.append((values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * eps))
    return computed, torch.tensor(differences, dtype=torch.float64)


@pytest.mark.parametrize("name", IMPLICIT)
def test_the_gradient_of_the_computed_numbers_equals_differences_to_1e_8(name: str):
    ts = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    y0 = torch.tensor([[0.4, -0.8], [1.2, 0.1]], dtype=torch.float64, requires_grad=True)
    solve_ = differentiable(make_method(name), "off")
    computed, differences = flat_gradient(SmallField(dim=2, width=3), y0, ts, solve_, eps=2e-3)
    torch.testing.assert_close(computed, differences, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", ["radauIIA5", "trbdf2", "implicit_euler"])
def test_the_gradient_of_a_stiff_solve_equals_differences(name: str):
    class Stiff(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rates = nn.Parameter(torch.tensor([2.0, 5.0], dtype=torch.float64))

        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return -torch.exp(self.rates) * (y**3 - torch.cos(t)) * 10

    ts = torch.tensor([0.0, 0.5, 1.5], dtype=torch.float64)
    y0 = torch.tensor([[1.0, 0.7]], dtype=torch.float64, requires_grad=True)
    solve_ = differentiable(make_method(name, step_size=0.25), "off")
    computed, differences = flat_gradient(Stiff(), y0, ts, solve_, eps=1e-3)
    torch.testing.assert_close(computed, differences, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", ["radauIIA5", "trapezoid"])
def test_the_continuous_adjoint_is_near_the_discrete_gradient(name: str):
    class Fast(SmallField):
        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return super().forward(t, y) - 10 * y  # backward in time this grows: a stiffer one could not be run back

    ts = torch.tensor([0.0, 0.2, 1.0], dtype=torch.float64)
    gradients = []
    for adjoint in ("off", "on"):
        field, y0 = Fast(), torch.ones(5, 3, dtype=torch.float64, requires_grad=True)
        solution = differentiable(make_method(name, step_size=0.01), adjoint)(field, y0, ts)
        gradients.append(torch.autograd.grad(solution.ys[-1].sum(), [y0, *field.parameters()]))
    for discrete, continuous in zip(*gradients, strict=True):
        torch.testing.assert_close(discrete, continuous, rtol=1e-3, atol=1e-4)


def test_nothing_is_recorded_where_nothing_needs_a_gradient():
    y0, ts = torch.ones(2, 2, dtype=torch.float64), torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert not solve(make_method("radauIIA5"), lambda t, y: -y, y0, ts).ys.requires_grad
    rate = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)

    def late(t: Tensor, y: Tensor) -> Tensor:  # comes to its parameter within the step only
        return -y if t < 0.1 else -rate * y

    solve(make_method("radauIIA5"), late, y0, ts).ys.sum().backward()
    assert float(rate.grad) < 0


def test_second_derivatives_are_refused():
    y0 = torch.ones(1, 2, dtype=torch.float64, requires_grad=True)
    ts = torch.tensor([0.0, 1.0], dtype=torch.float64)
    ys = solve(make_method("radauIIA5"), lambda t, y: -(y**3), y0, ts).ys
    with pytest.raises(RuntimeError, match="an implicit method has first derivatives only"):
        torch.autograd.grad(ys.sum(), y0, create_graph=True)


@pytest.mark.parametrize("name", IMPLICIT)
def test_equations_without_a_solution_fail_in_one_sentence(name: str):
    # From y = 1, no step of y' = 100 (y^2 + 1) as long as this has a solution.
    y0, ts = torch.ones(1, 1, dtype=torch.float64), torch.tensor([0.0, -1.0, -3.0], dtype=torch.float64)
    with pytest.raises(SolveFailed) as caught:
        solve(make_method(name), lambda t, y: -100 * (y**2 + 1), y0, ts)
    message = str(caught.value)
    assert message.startswith(f"{name} stopped at t=0: Newton's method did not converge in 20 iterations (step 1.0e+00")
    assert "solver.step_size" in message
    assert "\n" not in message


@pytest.mark.parametrize("name", IMPLICIT)
def test_a_field_that_is_not_finite_fails_in_one_sentence(name: str):
    y0, ts = torch.ones(1, 1, dtype=torch.float64), torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64)
    with pytest.raises(SolveFailed, match=rf"{name} stopped at t=1: the state or the field is not finite there"):
        solve(make_method(name), lambda t, y: y * float("nan") if t > 1.05 else -y, y0, ts)


def test_a_state_too_large_for_a_jacobian_is_refused():
    y0, ts = torch.ones(5000, dtype=torch.float64), torch.tensor([0.0, 1.0], dtype=torch.float64)
    with pytest.raises(SolveFailed, match=r"5000 \(at most 4096\): give a state \(B, D\)"):
        solve(make_method("implicit_euler"), lambda t, y: -y, y0, ts)


@pytest.mark.parametrize("name", ["radauIIA5", "gl4", "trapezoid"])
def test_complex_tupled_and_reversed_states_are_served(name: str):
    ts = torch.linspace(1.0, 0.0, 21, dtype=torch.float64)
    y0 = torch.tensor([1 + 1j, 2 - 1j], dtype=torch.complex128)
    ys = odeint(lambda t, y: (-0.5 + 2j) * y, y0, ts, method=name)
    torch.testing.assert_close(ys[-1], y0 * torch.exp(torch.tensor(0.5 - 2j)), rtol=0, atol=1e-2)
    pair = odeint(lambda t, y: (-y[1], y[0]), (y0.real, y0.imag), ts, method=name)
    expected = y0.real * math.cos(1) + y0.imag * math.sin(1)
    torch.testing.assert_close(pair[0][-1], expected, rtol=0, atol=2e-3)


def test_events_and_callbacks_come_from_torchdiffeq_s_loop():
    steps: list[float] = []

    class Falling(nn.Module):
        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return torch.stack((y[1], -9.8 * torch.ones_like(y[1])))

        def callback_step(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
            steps.append(float(t))

    y0, ts = torch.tensor([10.0, 0.0], dtype=torch.float64), torch.tensor([0.0, 1.0], dtype=torch.float64)
    odeint(Falling(), y0, ts, method="gl4", options={"step_size": 0.25})
    assert steps == [0.0, 0.25, 0.5, 0.75]
    event, _ = odeint(
        Falling(), y0, ts, method="gl4", options={"step_size": 0.01, "interp": "cubic"}, event_fn=lambda t, y: y[0]
    )
    assert float(event) == pytest.approx(math.sqrt(20 / 9.8), abs=1e-6)


def test_jacobians_are_kept_while_they_serve():
    counter = CountingField(SmallField())
    ts = torch.tensor([0.0, 1.0], dtype=torch.float64)
    with torch.no_grad():
        stats = solve(
            make_method("radauIIA5", step_size=0.01), counter, torch.ones(2, 3, dtype=torch.float64), ts
        ).stats
    assert stats.nfe_forward == counter.calls
    assert stats.nfe_forward / stats.accepted < 20  # one at the start, three an iteration
