"""Gradients of every adjoint through every solver that can serve it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from node_runner.adjoints import ADJOINTS
from node_runner.types import Method
from tests.problems import (
    FIXED,
    IMPLICIT,
    METHODS,
    OF_THE_REFERENCE,
    CountingField,
    SmallField,
    differentiable,
    has_option,
    make_method,
    torchdiffeq_for,
)


TIMES = {
    "forward": torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64),
    "backward": torch.tensor([1.0, 0.3, 0.0], dtype=torch.float64),
}
CONTINUOUS = ["on", "seminorm"]


def accurate(name: str) -> Method:
    """A solver, with steps of its own where it takes fixed ones."""
    if name == "explicit_adams":  # stable at these steps at low orders only
        return make_method(name, step_size=0.05, max_order=4)
    return make_method(name, step_size=0.05) if has_option(name, "step_size") else METHODS[name]


PAIRS = [
    pytest.param(adjoint, name, id=f"{adjoint}-{name}")
    for adjoint in OF_THE_REFERENCE
    for name in METHODS
    if ADJOINTS.get(adjoint)().unsupported(METHODS[name]) is None and not METHODS[name].halves
]
"""Every adjoint with every solver that it can differentiate."""


def initial() -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(4, 3, generator=generator, dtype=torch.float64).requires_grad_(True)


def loss_of(ys: Tensor) -> Tensor:
    """Depends on every state at every time, differently."""
    weights = torch.linspace(-1, 2, ys.numel(), dtype=ys.dtype).view_as(ys)
    return (weights * ys.sin()).sum()


def gradients(loss: Tensor, y0: Tensor, field: nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(loss, [y0, *field.parameters()]))


def assert_same(ours: list[Tensor], theirs: list[Tensor], tolerance: float) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="module")
def truth() -> list[Tensor]:
    """Gradients of the exact flow, by a solve far more accurate than the tests ask for."""
    field, y0 = SmallField(), initial()
    ys = differentiable(make_method("dopri5", max_step=0.1), "off", rtol=1e-9, atol=1e-9)(
        field, y0, TIMES["forward"]
    ).ys
    return gradients(loss_of(ys), y0, field)


@pytest.mark.parametrize(("adjoint", "name"), PAIRS)
def test_every_gradient_is_near_that_of_the_exact_flow(adjoint: str, name: str, truth: list[Tensor]):
    field, y0 = SmallField(), initial()
    ys = differentiable(accurate(name), adjoint, rtol=1e-5, atol=1e-5)(field, y0, TIMES["forward"]).ys
    ours = gradients(loss_of(ys), y0, field)
    order = METHODS[name].order or 4
    # Low-order pairs and dense output meet a tolerance of 1e-5 less well; Euler's steps are simply long.
    tolerance = 0.3 if order == 1 else 2e-2 if order <= 3 or name == "dopri8" else 1e-3
    for mine, exact in zip(ours, truth, strict=True):
        torch.testing.assert_close(mine, exact, rtol=0, atol=tolerance * float(exact.abs().max()))


@pytest.mark.parametrize(
    ("time_dependent", "direction"),
    [(False, "forward"), (True, "backward")],
    ids=["autonomous-forward", "time-dependent-backward"],
)
@pytest.mark.parametrize(
    ("adjoint", "name"),
    # The Jacobian of the backward system, which implicit methods need, is not to be had from torchdiffeq's.
    [
        pair
        for pair in PAIRS
        if pair.values[0] in CONTINUOUS and pair.values[1] not in ("scipy_solver", "radau5", *IMPLICIT)
    ],
)
def test_continuous_gradients_and_their_cost_equal_torchdiffeq(
    adjoint: str, name: str, time_dependent: bool, direction: str
):
    method, ts = accurate(name), TIMES[direction]
    adjoint_options = dict(method.options)
    if adjoint == "seminorm":
        adjoint_options["norm"] = "seminorm"

    theirs, y0 = CountingField(SmallField(time_dependent=time_dependent)), initial()
    ys = torchdiffeq_for(name).odeint_adjoint(
        theirs, y0, ts, rtol=1e-3, atol=1e-4, method=name, options=dict(method.options), adjoint_options=adjoint_options
    )
    forward = theirs.calls
    expected = gradients(loss_of(ys), y0, theirs)

    ours, y0 = CountingField(SmallField(time_dependent=time_dependent)), initial()
    solution = differentiable(method, adjoint, rtol=1e-3, atol=1e-4)(ours, y0, ts)
    assert torch.equal(solution.ys, ys)
    assert (solution.stats.nfe_forward, solution.stats.nfe_backward) == (forward, 0)
    got = gradients(loss_of(solution.ys), y0, ours)
    assert_same(got, expected, 1e-12)
    assert solution.stats.nfe_backward == theirs.calls - forward == ours.calls - forward
    steps = solution.stats.accepted_backward + solution.stats.rejected_backward
    assert 0 < steps <= solution.stats.nfe_backward


@pytest.mark.parametrize("direction", TIMES)
@pytest.mark.parametrize("name", [pair.values[1] for pair in PAIRS if pair.values[0] == "off"])
def test_backpropagated_gradients_equal_torchdiffeq_to_the_bit(name: str, direction: str):
    method, ts = accurate(name), TIMES[direction]
    theirs, y0 = SmallField(), initial()
    ys = torchdiffeq_for(name).odeint(theirs, y0, ts, rtol=1e-4, atol=1e-5, method=name, options=dict(method.options))
    expected = gradients(loss_of(ys), y0, theirs)
    ours, y0 = SmallField(), initial()
    solution = differentiable(method, "off", rtol=1e-4, atol=1e-5)(ours, y0, ts)
    got = gradients(loss_of(solution.ys), y0, ours)
    assert all(torch.equal(mine, other) for mine, other in zip(got, expected, strict=True))
    assert solution.stats.nfe_backward == 0


@pytest.mark.parametrize("solver", ["LSODA", "RK45", "Radau"])
def test_scipy_gives_gradients_through_the_continuous_adjoint(solver: str, truth: list[Tensor]):
    from node_runner.settings import ScipySolver

    field, y0 = CountingField(SmallField()), initial()
    method = make_method("scipy_solver", solver=ScipySolver(solver))
    solution = differentiable(method, "on", rtol=1e-7, atol=1e-7)(field, y0, TIMES["forward"])
    assert_same(gradients(loss_of(solution.ys), y0, field), truth, 1e-4)
    assert solution.stats.nfe_forward + solution.stats.nfe_backward == field.calls


@pytest.mark.parametrize("name", FIXED)
def test_gradcheck_holds_for_backpropagation_through_fixed_steps(name: str):
    options = {"max_order": 4} if has_option(name, "max_order") else {}
    if options and has_option(name, "max_iters"):
        options["max_iters"] = 2  # the count must not depend on the perturbation of gradcheck
    solve = differentiable(make_method(name, step_size=0.25, **options), "off", rtol=1e3, atol=1e3)

    def end(y0: Tensor, weight: Tensor) -> Tensor:
        def field(t: Tensor, y: Tensor) -> Tensor:
            return torch.tanh(y @ weight) * torch.cos(t)

        return solve(field, y0, TIMES["forward"]).ys

    y0 = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(end, (y0, weight), eps=1e-6, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("adjoint", CONTINUOUS)
def test_the_continuous_gradient_equals_finite_differences_at_a_tight_tolerance(adjoint: str):
    field = SmallField(dim=2, width=3)
    solve = differentiable(make_method("dopri5"), adjoint, rtol=1e-9, atol=1e-9)
    y0 = torch.tensor([[0.4, -0.8]], dtype=torch.float64, requires_grad=True)

    def value() -> Tensor:
        return loss_of(solve(field, y0, TIMES["forward"]).ys)

    computed = gradients(value(), y0, field)
    eps = 1e-4
    with torch.no_grad():
        for tensor, gradient in zip([y0, *field.parameters()], computed, strict=True):
            flat = tensor.view(-1)
            for i in range(len(flat)):
                flat[i] += eps
                above = float(value())
                flat[i] -= 2 * eps
                below = float(value())
                flat[i] += eps
                assert float(gradient.view(-1)[i]) == pytest.approx((above - below) / (2 * eps), rel=1e-4, abs=1e-5)


def test_the_seminorm_needs_fewer_backward_evaluations():
    counts = {}
    for adjoint in CONTINUOUS:
        field, y0 = SmallField(width=32), initial()
        solution = differentiable(METHODS["dopri5"], adjoint, rtol=1e-6, atol=1e-6)(field, y0, TIMES["forward"])
        gradients(1000 * loss_of(solution.ys), y0, field)
        counts[adjoint] = solution.stats.nfe_backward
    assert counts["seminorm"] < counts["on"]
