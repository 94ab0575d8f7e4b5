"""What an adjoint does at the edges: parameters without use, states without gradient, refusals, failures."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from node_runner.adjoints import ADJOINTS
from node_runner.adjoints.continuous import rms_norm
from node_runner.engines import ENGINES
from node_runner.errors import ConfigError, SolveFailed
from node_runner.settings import ToleranceConfig
from node_runner.solving import Solve, Tolerances
from node_runner.types import Solution
from tests.problems import FIXED, METHODS, OF_THE_REFERENCE, SmallField, differentiable, make_method


TS = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
CONTINUOUS = ["on", "seminorm"]


class WithSpare(nn.Module):
    """A field that has a parameter without use and a frozen one."""

    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Parameter(torch.eye(2, dtype=torch.float64))
        self.spare = nn.Parameter(torch.ones(3, dtype=torch.float64))
        self.frozen = nn.Parameter(torch.ones(2, dtype=torch.float64), requires_grad=False)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return -torch.tanh(y @ self.used) * self.frozen


def start(grad: bool = True) -> Tensor:
    return torch.tensor([[1.0, -0.5], [0.2, 0.3]], dtype=torch.float64, requires_grad=grad)


@pytest.mark.parametrize("adjoint", CONTINUOUS)
def test_a_parameter_without_use_gets_zero_and_a_frozen_one_nothing(adjoint: str):
    field, y0 = WithSpare(), start()
    differentiable(METHODS["dopri5"], adjoint)(field, y0, TS).ys.sum().backward()
    reference, other = WithSpare(), start()
    differentiable(METHODS["dopri5"], "off", rtol=1e-8, atol=1e-8)(reference, other, TS).ys.sum().backward()
    assert torch.equal(field.spare.grad, torch.zeros(3, dtype=torch.float64))
    assert field.frozen.grad is None
    torch.testing.assert_close(field.used.grad, reference.used.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(y0.grad, other.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("adjoint", OF_THE_REFERENCE)
def test_an_initial_state_without_gradient_leaves_the_parameters_theirs(adjoint: str):
    field, other = SmallField(2), SmallField(2)
    y0 = start(grad=False)
    differentiable(METHODS["dopri5"], adjoint)(field, y0, TS).ys.sum().backward()
    differentiable(METHODS["dopri5"], adjoint)(other, start(), TS).ys.sum().backward()
    assert y0.grad is None
    for mine, theirs in zip(field.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=0, atol=1e-14)


@pytest.mark.parametrize("adjoint", OF_THE_REFERENCE)
def test_a_field_without_parameters_leaves_the_state_its_gradient(adjoint: str):
    class Decay(nn.Module):
        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return -y

    y0 = start()
    differentiable(METHODS["dopri5"], adjoint, rtol=1e-8, atol=1e-8)(Decay(), y0, TS).ys[-1].sum().backward()
    expected = torch.full_like(y0, float(torch.exp(torch.tensor(-1.0))))
    torch.testing.assert_close(y0.grad, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("adjoint", OF_THE_REFERENCE)
def test_without_gradients_nothing_is_recorded_and_the_values_are_the_same(adjoint: str):
    field, y0 = SmallField(2), start()
    solve = differentiable(METHODS["dopri5"], adjoint)
    recorded = solve(field, y0, TS)
    with torch.no_grad():
        plain = solve(field, y0, TS)
    assert recorded.ys.requires_grad
    assert not plain.ys.requires_grad
    assert torch.equal(plain.ys, recorded.ys)
    assert plain.stats.nfe_forward == recorded.stats.nfe_forward


@pytest.mark.parametrize("adjoint", OF_THE_REFERENCE)
def test_a_single_output_time_gives_the_initial_state_and_its_gradient(adjoint: str):
    field, y0 = SmallField(2), start()
    solution = differentiable(METHODS["dopri5"], adjoint)(field, y0, TS[:1])
    solution.ys.sum().backward()
    assert torch.equal(solution.ys, y0.detach()[None])
    assert torch.equal(y0.grad, torch.ones_like(y0))


@pytest.mark.parametrize("times", [torch.float32, torch.float64], ids=["times32", "times64"])
@pytest.mark.parametrize("adjoint", OF_THE_REFERENCE)
def test_gradients_have_the_dtype_of_the_parameters(adjoint: str, times: torch.dtype):
    field = nn.Linear(2, 2)

    class Field(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = field

        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return torch.tanh(self.layer(y))

    y0 = start().detach().float().requires_grad_(True)
    differentiable(METHODS["dopri5"], adjoint, rtol=1e-3, atol=1e-3)(Field(), y0, TS.to(times)).ys.sum().backward()
    assert {y0.grad.dtype, field.weight.grad.dtype, field.bias.grad.dtype} == {torch.float32}


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4, 4)], ids=["vector", "image"])
@pytest.mark.parametrize("adjoint", OF_THE_REFERENCE)
def test_states_of_any_shape_get_gradients_of_theirs(adjoint: str, shape: tuple[int, ...]):
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rate = nn.Parameter(torch.tensor(-0.7, dtype=torch.float64))

        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return self.rate * y

    field, y0 = Scale(), torch.ones(shape, dtype=torch.float64, requires_grad=True)
    ys = differentiable(METHODS["dopri5"], adjoint, rtol=1e-8, atol=1e-8)(field, y0, TS).ys
    ys[-1].sum().backward()
    assert y0.grad.shape == shape
    decay = float(torch.exp(field.rate.detach()))
    assert float(field.rate.grad) == pytest.approx(y0.numel() * decay, rel=1e-5)
    torch.testing.assert_close(y0.grad, torch.full(shape, decay, dtype=torch.float64), rtol=0, atol=1e-5)


@pytest.mark.parametrize("adjoint", CONTINUOUS)
def test_each_backward_pass_is_booked(adjoint: str):
    field, y0 = SmallField(2), start()
    solution = differentiable(METHODS["dopri5"], adjoint)(field, y0, TS)
    loss = solution.ys.sum()
    loss.backward(retain_graph=True)
    once = solution.stats.nfe_backward, solution.stats.accepted_backward
    loss.backward()
    assert (solution.stats.nfe_backward, solution.stats.accepted_backward) == (2 * once[0], 2 * once[1])


@pytest.mark.parametrize("adjoint", CONTINUOUS)
def test_second_derivatives_are_refused(adjoint: str):
    field, y0 = SmallField(2), start()
    ys = differentiable(METHODS["dopri5"], adjoint)(field, y0, TS).ys
    (gradient,) = torch.autograd.grad(ys.square().sum(), y0, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("adjoint", CONTINUOUS)
def test_the_backward_solve_has_a_tolerance_of_its_own(adjoint: str):
    def cost(**tolerance: float) -> tuple[int, int]:
        tolerances = Tolerances(ToleranceConfig(rtol=1e-3, atol=1e-3, **tolerance))
        solve = Solve(ENGINES.get("torchdiffeq")(), METHODS["dopri5"], ADJOINTS.get(adjoint)(), tolerances)
        solution = solve(SmallField(2), start(), TS)
        solution.ys.square().sum().backward()
        return solution.stats.nfe_forward, solution.stats.nfe_backward

    same, tight = cost(), cost(adjoint_rtol=1e-9, adjoint_atol=1e-9)
    assert tight[0] == same[0]
    assert tight[1] > same[1]


def test_a_failure_of_the_backward_solve_is_told_from_one_of_the_forward_solve():
    forward = differentiable(METHODS["dopri5"], "off")

    def backward(*args: object, **more: object) -> Solution:
        raise SolveFailed("dopri5 stopped at t=0.5")

    solve = ADJOINTS.get("on")().wrap(forward, backward)
    loss = solve(SmallField(2), start(), TS).ys.sum()
    with pytest.raises(SolveFailed, match=r"^in the backward solve of the adjoint: dopri5 stopped at t=0\.5$"):
        loss.backward()


# --- refusals ------------------------------------------------------------------------------------

REFUSED = [("off", "scipy_solver"), *(("seminorm", name) for name in (*FIXED, "scipy_solver"))]


@pytest.mark.parametrize(("adjoint", "name"), REFUSED)
def test_a_combination_that_cannot_work_is_refused_with_what_to_use(adjoint: str, name: str):
    with pytest.raises(ConfigError, match=rf"^adjoint={adjoint} .*solver={name}\b.*use adjoint=on$"):
        differentiable(METHODS[name], adjoint)


@pytest.mark.parametrize(
    ("adjoint", "name"),
    [(a, n) for a in ("off", "on", "seminorm") for n in METHODS if (a, n) not in REFUSED],
)
def test_every_other_combination_is_taken(adjoint: str, name: str):
    assert callable(differentiable(METHODS[name], adjoint))


@pytest.mark.parametrize("adjoint", CONTINUOUS)
def test_a_field_whose_parameters_cannot_be_found_is_refused(adjoint: str):
    with pytest.raises(ConfigError, match=f"adjoint={adjoint} needs the vector field to be an nn.Module"):
        differentiable(METHODS["dopri5"], adjoint)(lambda t, y: -y, start(), TS)


@pytest.mark.parametrize("adjoint", CONTINUOUS)
def test_a_gradient_for_the_output_times_is_refused(adjoint: str):
    ts = TS.clone().requires_grad_(True)
    with pytest.raises(ConfigError, match=f"adjoint={adjoint} gives no gradient for the output times: use adjoint=off"):
        differentiable(METHODS["dopri5"], adjoint)(SmallField(2), start(), ts)


def test_backpropagation_gives_a_gradient_for_the_output_times():
    ts = TS.clone().requires_grad_(True)
    y0 = torch.ones(1, 1, dtype=torch.float64)
    differentiable(make_method("dopri5"), "off", rtol=1e-8, atol=1e-8)(lambda t, y: -y, y0, ts).ys[-1].sum().backward()
    # d/dT exp(-T) at T = 1.
    assert float(ts.grad[-1]) == pytest.approx(-float(torch.exp(torch.tensor(-1.0))), abs=1e-5)


def test_the_rms_norm_is_that_of_torchdiffeq():
    from torchdiffeq._impl.misc import _rms_norm

    x = torch.randn(7, 3, dtype=torch.float64)
    assert torch.equal(rms_norm(x), _rms_norm(x))
