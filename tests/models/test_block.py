"""The ODE block, and the wrappers that shift and widen a field."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from node_runner.fields import FIELDS
from node_runner.models.parts.block import ODEBlock
from node_runner.models.parts.dynamics import Hutchinson, Shifted, Widened, divergence_exact, leading_norm
from tests.models.builders import LinearField, accurate_solve, field_factory
from tests.problems import METHODS, OF_THE_REFERENCE, SmallField, differentiable, make_method, solve


TS = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)


def block(augment: int = 0, shape: tuple[int, ...] = (2,), field: str = "mlp", **settings: object) -> ODEBlock:
    return ODEBlock(field_factory(field, **settings), accurate_solve(), {}, shape, augment).double()


@pytest.mark.parametrize("adjoint", OF_THE_REFERENCE)
def test_samples_that_start_at_different_times_are_each_solved_from_their_own(adjoint: str):
    field = SmallField()
    y0, t0 = torch.randn(4, 3, dtype=torch.float64), torch.tensor([0.0, 0.7, -1.3, 5.0], dtype=torch.float64)
    run = differentiable(make_method("rk4", step_size=0.1) if adjoint != "seminorm" else METHODS["dopri5"], adjoint,
                         rtol=1e-9, atol=1e-9)  # fmt: skip
    together = run(Shifted(field, t0), y0, TS).ys
    alone = torch.cat([run(field, y0[i : i + 1], TS + t0[i]).ys for i in range(4)], dim=1)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6 if adjoint == "seminorm" else 1e-12)


def test_a_shift_keeps_the_parameters_in_sight_of_the_adjoint():
    field = SmallField()
    assert [id(p) for p in Shifted(field, torch.zeros(2)).parameters()] == [id(p) for p in field.parameters()]


def test_the_block_shifts_only_fields_that_depend_on_time():
    seen: list[tuple[int, ...]] = []

    class Watch(SmallField):
        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            seen.append(tuple(t.shape))
            return super().forward(t, y)

    y0, t0 = torch.zeros(4, 3, dtype=torch.float64), torch.arange(4.0, dtype=torch.float64)
    for time_dependent, shape in ((True, (4,)), (False, ())):
        made = ODEBlock(lambda s, d=time_dependent: Watch(time_dependent=d), accurate_solve(), {}, (3,))
        made(y0, TS, t0)
        assert set(seen) == {shape}
        seen.clear()


@pytest.mark.parametrize(("shape", "field"), [((2,), "mlp"), ((3, 4, 4), "conv")], ids=["vector", "image"])
def test_augmented_dimensions_start_at_zero_and_stand_behind_the_others(shape: tuple[int, ...], field: str):
    made = block(3, shape, field)
    y = torch.randn(2, *shape, dtype=torch.float64)
    wide = made.widen(y)
    assert wide.shape == (2, shape[0] + 3, *shape[1:])
    assert made.state_shape == wide.shape[1:]
    assert torch.equal(wide[:, : shape[0]], y)
    assert torch.equal(wide[:, shape[0] :], torch.zeros(2, 3, *shape[1:], dtype=torch.float64))
    ys = made(y, TS).ys
    assert ys.shape == (3, *wide.shape)
    assert torch.equal(ys[0], wide)


def test_without_augmentation_the_state_is_as_it_is():
    y = torch.randn(2, 2)
    assert block().widen(y) is y


def test_the_vector_field_of_a_block_is_that_of_its_state_with_zeros_behind():
    made = block(augment=2)
    y, t = torch.randn(5, 2, dtype=torch.float64), torch.tensor(0.1, dtype=torch.float64)
    expected = made.field(t, torch.cat((y, torch.zeros(5, 2, dtype=torch.float64)), dim=1))[:, :2]
    assert torch.equal(made.vector_field(t, y), expected)


# --- widened by integrals ------------------------------------------------------------------------


def test_integrals_stand_beside_the_state_and_start_at_zero():
    wide = Widened(SmallField(), (3,), [lambda t, y, dy: y[:, 0], lambda t, y, dy: dy[:, 1]])
    y0 = torch.randn(4, 3, dtype=torch.float64)
    begin = wide.begin(y0)
    assert begin.shape == (4, 5)
    states, integrals = wide.split(begin)
    assert torch.equal(states, y0)
    assert torch.equal(integrals, torch.zeros(4, 2, dtype=torch.float64))


def test_an_integral_along_a_solve_has_its_known_value():
    # y = y0 exp(-t): the integral of y is y0 (1 - exp(-T)), that of dy is the change of y.
    wide = Widened(LinearField([[-1.0]]), (1,), [lambda t, y, dy: y[:, 0], lambda t, y, dy: dy[:, 0]])
    y0 = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    solution = accurate_solve()(wide, wide.begin(y0), TS)
    ys, integrals = wide.split(solution.ys)
    torch.testing.assert_close(integrals[..., 0], y0[:, 0] * (1 - torch.exp(-TS))[:, None], rtol=0, atol=1e-7)
    torch.testing.assert_close(integrals[..., 1], (ys - ys[0])[..., 0], rtol=0, atol=1e-7)


@pytest.mark.parametrize("shape", [(3,), (2, 4, 4)], ids=["vector", "image"])
def test_states_keep_their_shape_inside_the_field(shape: tuple[int, ...]):
    seen = []

    class Watch(torch.nn.Module):
        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            seen.append(tuple(y.shape[1:]))
            return -y

    wide = Widened(Watch(), shape, [lambda t, y, dy: y.flatten(1).sum(1)])
    y0 = torch.randn(2, *shape, dtype=torch.float64)
    ys, integrals = wide.split(accurate_solve()(wide, wide.begin(y0), TS).ys)
    assert set(seen) == {shape}
    assert ys.shape == (3, 2, *shape)
    assert integrals.shape == (3, 2, 1)


@pytest.mark.parametrize("grad", [True, False], ids=["recorded", "not-recorded"])
def test_integrands_may_differentiate_also_where_nothing_is_recorded(grad: bool):
    wide = Widened(LinearField([[2.0, 1.0], [0.0, -5.0]]), (2,), [divergence_exact])
    with torch.set_grad_enabled(grad):
        change = wide(torch.tensor(0.0), wide.begin(torch.randn(3, 2, dtype=torch.float64)))
    torch.testing.assert_close(change[:, 2], torch.full((3,), -3.0, dtype=torch.float64))
    assert change.requires_grad is grad


@pytest.mark.parametrize("adjoint", OF_THE_REFERENCE)
def test_gradients_flow_through_the_integrals(adjoint: str):
    # The integral of tr(df/dy) over [0, 1] for f = y A is tr(A): its gradient is the identity.
    field = LinearField([[0.3, -1.0], [0.5, -0.2]])
    wide = Widened(field, (2,), [divergence_exact])
    y0 = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    solution = differentiable(METHODS["dopri5"], adjoint, rtol=1e-8, atol=1e-8)(wide, wide.begin(y0), TS)
    wide.split(solution.ys)[1][-1].mean().backward()
    torch.testing.assert_close(field.a.grad, torch.eye(2, dtype=torch.float64), rtol=0, atol=1e-6)
    torch.testing.assert_close(y0.grad, torch.zeros_like(y0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("adjoint", OF_THE_REFERENCE)
def test_gradients_of_integrals_agree_with_finite_differences(adjoint: str):
    field = SmallField(2)
    noise = torch.tensor([[1.0, -1.0], [-1.0, -1.0]], dtype=torch.float64)
    wide = Widened(field, (2,), [Hutchinson(noise), lambda t, y, dy: dy.square().mean(1)])
    run = differentiable(METHODS["dopri5"], adjoint, rtol=1e-8, atol=1e-8)
    y0 = torch.tensor([[0.5, -0.3], [0.1, 0.9]], dtype=torch.float64)

    def value() -> Tensor:
        return run(wide, wide.begin(y0), TS).ys[-1].square().sum()

    value().backward()
    weight, eps = field.second.weight, 1e-5
    with torch.no_grad():
        for i, j in ((0, 0), (1, 5)):
            weight[i, j] += eps
            above = float(value())
            weight[i, j] -= 2 * eps
            below = float(value())
            weight[i, j] += eps
            assert float(weight.grad[i, j]) == pytest.approx((above - below) / (2 * eps), rel=1e-3, abs=1e-5)


def test_the_exact_divergence_is_the_trace_of_autograd_s_jacobian():
    field = SmallField()
    y = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    t = torch.tensor(0.4, dtype=torch.float64)
    trace = divergence_exact(t, y, field(t, y))
    for row, value in zip(y.detach(), trace.detach(), strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda x: field(t, x[None])[0], row)
        assert float(value) == pytest.approx(float(jacobian.trace()), abs=1e-12)


def test_the_exact_divergence_of_an_image_sums_over_all_its_numbers():
    field = FIELDS.get("conv")((2, 3, 3)).double()
    y = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    t = torch.tensor(0.4, dtype=torch.float64)
    trace = divergence_exact(t, y, field(t, y))
    jacobian = torch.autograd.functional.jacobian(lambda x: field(t, x[None])[0].flatten(), y.detach()[0])
    assert float(trace[0].detach()) == pytest.approx(float(jacobian.reshape(18, 18).trace()), abs=1e-10)


@pytest.mark.parametrize("distribution", ["rademacher", "gaussian"])
def test_hutchinson_s_estimate_is_unbiased(distribution: str, generator: torch.Generator):
    field = SmallField()
    y = torch.randn(1, 3, dtype=torch.float64).expand(20_000, 3).clone().requires_grad_(True)
    t = torch.tensor(0.4, dtype=torch.float64)
    if distribution == "gaussian":
        noise = torch.randn(y.shape, generator=generator, dtype=torch.float64)
    else:
        noise = torch.randint(0, 2, y.shape, generator=generator).double() * 2 - 1
    dy = field(t, y)
    estimates = Hutchinson(noise)(t, y, dy).detach()
    exact = _trace(field, t, y.detach()[0])
    standard_error = float(estimates.std()) / len(estimates) ** 0.5
    assert standard_error > 0
    assert float(estimates.mean()) == pytest.approx(exact, abs=4 * standard_error)


def _trace(field: torch.nn.Module, t: Tensor, y: Tensor) -> float:
    return float(torch.autograd.functional.jacobian(lambda x: field(t, x[None])[0], y).trace())


def test_the_leading_norm_looks_at_the_first_columns_only():
    error = torch.tensor([[3.0, 4.0, 1e9], [0.0, 0.0, 1e9]], dtype=torch.float64)
    assert float(leading_norm(2)(error)) == pytest.approx((25 / 4) ** 0.5)


def test_the_leading_norm_keeps_a_large_integral_from_steering_the_steps():
    field = SmallField()
    y0 = torch.randn(4, 3, dtype=torch.float64)
    wide = Widened(field, (3,), [lambda t, y, dy: 1e6 * torch.sin(30 * y[:, 0])])
    plain = solve(METHODS["dopri5"], field, y0, TS)
    led = solve(METHODS["dopri5"], wide, wide.begin(y0), TS, norm=leading_norm(3))
    steered = solve(METHODS["dopri5"], wide, wide.begin(y0), TS)
    assert led.stats.nfe_forward == plain.stats.nfe_forward < steered.stats.nfe_forward
    torch.testing.assert_close(led.ys[..., :3], plain.ys, rtol=0, atol=1e-12)
