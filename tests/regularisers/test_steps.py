"""Regularisers that look at the solver's steps: known values, refusals, and what they do to the solve."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from node_runner.errors import ConfigError
from node_runner.models.parts.dynamics import Noted, penalised_solve
from node_runner.regularisers import REGULARISERS
from node_runner.regularisers.kinetic import Kinetic
from node_runner.regularisers.solver_error import SolverError
from node_runner.regularisers.stiffness import Stiffness
from node_runner.settings import Batching
from tests.models.builders import LinearField, field_factory
from tests.problems import differentiable, make_method


TS = torch.tensor([0.0, 1.0], dtype=torch.float64)


def noted(name: str = "dopri5", rate: float = -3.0, **options: object) -> tuple[Noted, int]:
    """The steps of dy/dt = rate y in two dimensions, and the solver's own count of them."""
    field = Noted(LinearField([[rate, 0.0], [0.0, rate]]), {"solver_error": SolverError(), "stiffness": Stiffness()})
    y0 = torch.tensor([[1.0, -2.0], [0.5, 0.1]], dtype=torch.float64)
    method = make_method(name, **options)
    solution = differentiable(method, rtol=1e-4, atol=1e-5, engine="auto")(field, y0, TS)
    return field, solution.stats.accepted


@pytest.mark.parametrize("name", ["dopri5", "tsit5", "dopri8"])
def test_a_field_hears_of_every_accepted_step_and_can_take_it_again(name: str):
    # A first step too large, so that attempts are rejected before the first is accepted.
    field, accepted = noted(name, first_step=3.0)
    assert len(field.steps) == accepted > 0
    for step, following in zip(field.steps, field.steps[1:], strict=False):
        torch.testing.assert_close(step.y + step.sum(step.tableau.b), following.y, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(step.slopes[0], -3.0 * step.y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["dopri5", "tsit5", "dopri8"])
@pytest.mark.parametrize("rate", [-3.0, 0.5])
def test_the_stiffness_of_a_linear_field_is_its_eigenvalue(name: str, rate: float):
    field, accepted = noted(name, rate)
    for step in field.steps:
        torch.testing.assert_close(Stiffness().of_step(step), torch.full((2,), abs(rate)).double(), rtol=1e-6, atol=0)
    assert float(field.sums(2, TS)["stiffness"].detach()) == pytest.approx(abs(rate) * accepted, rel=1e-6)


def test_the_solver_s_error_is_of_fifth_order_in_the_step():
    sizes = []
    for h in (0.2, 0.1):
        field, _ = noted(first_step=h, min_step=h, max_step=h)
        sizes.append(float(SolverError().of_step(field.steps[0]).mean().detach()))
    assert sizes[0] > 0
    # h^5 from the estimate, and h once more in front of it.
    assert sizes[0] / sizes[1] == pytest.approx(2**6, rel=0.25)


def test_a_field_at_rest_is_not_stiff_and_has_gradients():
    field = Noted(LinearField([[0.0, 0.0], [0.0, 0.0]]), {"stiffness": Stiffness(), "solver_error": SolverError()})
    y0 = torch.ones(2, 2, dtype=torch.float64, requires_grad=True)
    differentiable(make_method("dopri5"), engine="torchdiffeq")(field, y0, TS)
    for value in field.sums(2, y0).values():
        assert float(value.detach()) == pytest.approx(0.0, abs=1e-9)
        (gradient,) = torch.autograd.grad(value, y0, retain_graph=True, allow_unused=True)
        assert gradient is None or bool(gradient.isfinite().all())


@pytest.mark.parametrize("name", ["solver_error", "stiffness"])
def test_gradients_agree_with_finite_differences(name: str):
    # All steps of one size, so that the step control has no part in it; the integral beside the state is left out.
    regularisers = {"kinetic": Kinetic(), name: REGULARISERS.get(name)()}
    field = field_factory("mlp", width=4)((2,)).double()
    solve = differentiable(make_method("dopri5", first_step=0.5, min_step=0.5, max_step=0.5), engine="auto")
    y0 = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weight, eps = field.hidden[0].weight, 1e-5

    def penalty() -> Tensor:
        return penalised_solve(solve, field, (2,), y0, TS, regularisers).penalties[name]

    penalty().backward()
    ends = []
    for change in (eps, -2 * eps):
        with torch.no_grad():
            weight[0, 0] += change
        ends.append(float(penalty().detach()))
    assert float(weight.grad[0, 0]) == pytest.approx((ends[0] - ends[1]) / (2 * eps), rel=1e-4)


@pytest.mark.parametrize(
    ("name", "adjoint", "options", "words"),
    [
        ("dopri5", "on", {}, "use adjoint=off"),
        ("rk4", "off", {}, "use solver=dopri5"),
        ("bosh3", "off", {}, "use solver=dopri5 or tsit5"),
        ("dopri5", "off", {"batching": Batching.per_sample}, "use solver.batching=shared"),
    ],
)
def test_solves_whose_steps_do_not_tell_are_refused_in_one_sentence(
    name: str, adjoint: str, options: dict[str, object], words: str
):
    field = Noted(LinearField([[1.0]]), {"stiffness": Stiffness()})
    solve = differentiable(make_method(name, **options), adjoint, engine="auto")
    with pytest.raises(ConfigError, match=words) as caught:
        solve(field, torch.ones(1, 1, dtype=torch.float64), TS)
    assert ";" not in str(caught.value)


@pytest.mark.parametrize("engine", ["native", "compiled"])
def test_engines_that_keep_their_steps_refuse(engine: str):
    field = Noted(LinearField([[1.0]]), {"stiffness": Stiffness()})
    y0: Tensor = torch.ones(1, 1, dtype=torch.float64)
    with pytest.raises(ConfigError, match=f"engine={engine} hands out no steps"):
        differentiable(make_method("dopri5"), engine=engine)(field, y0, TS)
