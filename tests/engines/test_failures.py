"""A solve that cannot go on ends soon, with a sentence that says where."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from node_runner.errors import SolveFailed
from node_runner.settings import ScipySolver
from node_runner.types import Method
from tests.problems import ADAPTIVE, EXPLICIT_FIXED, METHODS, make_method, solve


METHODS_THAT_WATCH = [*ADAPTIVE, *(f"scipy {solver.value}" for solver in ScipySolver)]
"""Methods that choose their steps. Fixed steps go to the end whatever happens."""

Y0 = torch.ones(2, 1, dtype=torch.float64)


def named(name: str, **options: object) -> Method:
    """A method by the names above, with a budget that a test can wait for."""
    if name.startswith("scipy "):
        return make_method("scipy_solver", solver=ScipySolver(name.split()[1]), **{"max_evaluations": 1000, **options})
    return make_method(name, **{"max_steps": 400, **options})


def reached(message: str) -> float:
    """The time that a sentence says was reached."""
    found = re.search(r"t=(-?[0-9.]+(e[+-]?[0-9]+)?)", message)
    assert found, message
    return float(found[1])


def failure(method: Method, field, ts: list[float], **tolerance: float) -> str:
    """The sentence of a solve that fails."""
    with pytest.raises(SolveFailed) as caught:
        solve(method, field, Y0, torch.tensor(ts, dtype=torch.float64), **tolerance)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(method.name)
    return message


@pytest.mark.parametrize("ts", [[0.0, 2.0], [2.0, 0.0]], ids=["forward", "backward"])
@pytest.mark.parametrize("name", METHODS_THAT_WATCH)
def test_a_field_of_nan_fails_at_once_and_names_the_start(name: str, ts: list[float]):
    calls = 0

    def field(t: Tensor, y: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return y * float("nan")

    message = failure(named(name), field, ts)
    assert reached(message) == ts[0]
    assert "not finite" in message
    assert calls <= 10


@pytest.mark.parametrize("name", METHODS_THAT_WATCH)
def test_a_field_that_turns_nan_fails_where_it_does(name: str):
    def field(t: Tensor, y: Tensor) -> Tensor:
        return torch.where(t > 0.5, y * float("nan"), y)

    # The last good step of a long-stepping method begins well before 0.5; SciPy's look beyond.
    assert 0.0 <= reached(failure(named(name), field, [0.0, 2.0], rtol=1e-4, atol=1e-5)) < 1.0


@pytest.mark.parametrize("name", METHODS_THAT_WATCH)
def test_a_solution_that_reaches_infinity_fails_where_it_does(name: str):
    # y' = y^2, y(0) = 1 is 1 / (1 - t).
    message = failure(named(name), lambda t, y: y**2, [0.0, 2.0], rtol=1e-3, atol=1e-3)
    assert reached(message) == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("name", METHODS_THAT_WATCH)
def test_a_field_that_no_step_can_resolve_fails(name: str):
    values = torch.tensor([1e30, -1e30, 1e30, 1e30, -1e30], dtype=torch.float64)
    calls = 0

    def field(t: Tensor, y: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return values[calls % 5].expand_as(y)

    budget = {"max_evaluations": 200} if name.startswith("scipy ") else {"max_steps": 100}
    message = failure(named(name, **budget), field, [0.0, 1.0])
    assert 0.0 <= reached(message) < 1.0


@pytest.mark.parametrize("name", ADAPTIVE)
def test_a_step_too_small_for_the_clock_is_called_that(name: str):
    message = failure(named(name), lambda t, y: 1e30 * torch.sin(1e30 * y), [1.0, 2.0], rtol=1e-9, atol=1e-12)
    assert reached(message) == pytest.approx(1.0, abs=1e-6)
    assert "step became too small" in message


@pytest.mark.parametrize("name", ADAPTIVE)
def test_the_budget_of_steps_is_kept_and_named(name: str):
    method = make_method(name, max_steps=3, first_step=0.125, max_step=0.125)
    message = failure(method, lambda t, y: -y, [0.0, 1.0], rtol=1e-2, atol=1e-2)
    assert "solver.max_steps=3" in message
    assert reached(message) == 0.375
    assert "(3 accepted, 0 rejected" in message
    assert ("solver=radau5" in message) == (method.implicit is None)
    ts = torch.tensor([0.0, 0.375], dtype=torch.float64)
    assert solve(method, lambda t, y: -y, Y0, ts, rtol=1e-2, atol=1e-2).stats.accepted == 3


@pytest.mark.parametrize("solver", list(ScipySolver), ids=lambda solver: solver.value)
def test_the_budget_of_evaluations_of_scipy_is_kept_and_named(solver: ScipySolver):
    method = make_method("scipy_solver", solver=solver, max_evaluations=20)
    calls = 0

    def field(t: Tensor, y: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return torch.cos(20 * t) * y

    message = failure(method, field, [0.0, 5.0])
    assert "solver.max_evaluations=20" in message
    assert 0.0 < reached(message) < 5.0
    assert calls == 20


@pytest.mark.parametrize("name", EXPLICIT_FIXED)
def test_fixed_steps_go_to_the_end_and_hand_on_what_is_not_finite(name: str):
    method = METHODS[name]
    solution = solve(method, lambda t, y: y * float("nan"), Y0, torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert solution.ys[-1].isnan().all()


@pytest.mark.parametrize("name", ADAPTIVE)
def test_min_step_goes_through_a_kick_that_would_stop_the_solve(name: str):
    method = make_method(name, min_step=0.05, max_steps=100)

    def field(t: Tensor, y: Tensor) -> Tensor:
        return torch.sin(1e9 * y)

    ys = solve(method, field, Y0, torch.tensor([0.0, 1.0], dtype=torch.float64), rtol=1e-9, atol=1e-9).ys
    assert ys.isfinite().all()


def test_times_that_do_not_increase_are_refused():
    message = failure(METHODS["dopri5"], lambda t, y: -y, [0.0, 1.0, 0.5])
    assert "refused the problem" in message
