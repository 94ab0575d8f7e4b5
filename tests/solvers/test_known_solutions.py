"""Every solver against solutions that are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch

from node_runner.types import Method
from tests.problems import FIXED, METHODS, Problem, has_option, linear, make_method, oscillator, solve


class Setting(NamedTuple):
    """A solver set to be accurate, its tolerance, and the error that it may then have."""

    method: Method
    tolerance: float
    error: float


FIXED_ERROR = {1: 0.15, 2: 3e-3, 3: 3e-5}
"""Of a fixed-step method by its order, at steps of 0.01; 1e-5 for the others."""

ADAPTIVE_ERROR = {
    "adaptive_heun": (1e-4, 5e-3),
    "fehlberg2": (1e-5, 1e-2),
    "bosh3": (1e-5, 5e-3),
    "dopri8": (1e-6, 2e-3),
}
"""Tolerance and error; 1e-6 and 1e-4 for the others. The low-order pairs are run at a looser tolerance for
speed. torchdiffeq's dense output between steps is less accurate than these methods themselves."""


def accurate(name: str) -> Setting:
    """A solver set to be accurate. Of Adams-Bashforth only the low orders are stable at these steps."""
    if name in FIXED:
        if name == "explicit_adams":
            return Setting(make_method(name, step_size=0.01, max_order=4), 1e-4, 1e-4)
        return Setting(make_method(name, step_size=0.01), 1e-4, FIXED_ERROR.get(METHODS[name].order or 4, 1e-5))
    return Setting(make_method(name), *ADAPTIVE_ERROR.get(name, (1e-6, 1e-4)))


@pytest.mark.parametrize("direction", [1, -1], ids=["forward", "backward"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("problem", [linear, oscillator])
@pytest.mark.parametrize("name", METHODS)
def test_a_solve_meets_the_known_solution(
    name: str, problem: Callable[[torch.dtype], Problem], dtype: torch.dtype, direction: int
):
    field, y0, exact = problem(dtype)
    ts = direction * torch.tensor([0.0, 0.13, 0.5], dtype=dtype)
    method, tolerance, error = accurate(name)
    ys = solve(method, field, y0, ts, rtol=tolerance, atol=tolerance).ys
    torch.testing.assert_close(ys, exact(ts), rtol=0, atol=error)


@pytest.mark.parametrize("name", METHODS)
def test_a_solve_that_does_not_begin_at_zero_runs_there_and_back(name: str):
    field, _, exact = linear()
    there = torch.tensor([2.0, 2.4], dtype=torch.float64)
    method, tolerance, error = accurate(name)
    begin = exact(there[:1])[0]
    end = solve(method, field, begin, there, rtol=tolerance, atol=tolerance).ys[-1]
    back = solve(method, field, end, there.flip(0), rtol=tolerance, atol=tolerance).ys[-1]
    torch.testing.assert_close(end, exact(there)[-1], rtol=0, atol=error)
    torch.testing.assert_close(back, begin, rtol=0, atol=2 * error)


@pytest.mark.parametrize("name", METHODS)
def test_the_first_state_is_the_initial_one_and_no_input_changes(name: str):
    field, y0, _ = linear()
    ts = torch.tensor([0.0, 0.1], dtype=torch.float64)
    kept = y0.clone(), ts.clone()
    solution = solve(METHODS[name], field, y0, ts, rtol=1e-3, atol=1e-3)
    # SciPy evaluates its dense output there too, which costs a rounding.
    torch.testing.assert_close(solution.ys[0], y0, rtol=0, atol=0 if METHODS[name].differentiable else 1e-14)
    assert torch.equal(y0, kept[0])
    assert torch.equal(ts, kept[1])


@pytest.mark.parametrize("times", [torch.float32, torch.float64], ids=["times32", "times64"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", METHODS)
def test_state_and_time_reach_the_field_in_the_dtype_of_the_state(name: str, dtype: torch.dtype, times: torch.dtype):
    field, y0, _ = oscillator(dtype)
    seen: set[tuple[torch.dtype, torch.dtype]] = set()

    def watched(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        seen.add((t.dtype, y.dtype))
        return field(t, y)

    solution = solve(METHODS[name], watched, y0, torch.tensor([0.0, 0.1], dtype=times), rtol=1e-3, atol=1e-3)
    assert seen == {(dtype, dtype)}
    assert solution.ys.dtype is dtype


@pytest.mark.parametrize("name", FIXED)
def test_with_fixed_steps_a_sample_does_not_feel_its_neighbours(name: str):
    field, y0, _ = linear()
    ts = torch.tensor([0.0, 0.25, 0.5], dtype=torch.float64)
    # The corrector of implicit Adams stops when the worst sample has converged: let it go on to the end.
    options = {"max_iters": 50} if has_option(name, "max_order") and has_option(name, "max_iters") else {}
    method = make_method(name, step_size=0.05, **options)
    together = solve(method, field, y0, ts, rtol=1e-13, atol=1e-13).ys
    alone = torch.cat([solve(method, field, y, ts, rtol=1e-13, atol=1e-13).ys for y in y0.split(1)], dim=1)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", FIXED)
def test_a_hundred_steps_along_a_trajectory_are_stable_at_the_defaults(name: str):
    # Two turns, at steps like those between the points of the data sets.
    field, y0, _ = oscillator()
    ts = torch.linspace(0.0, 4.0, 101, dtype=torch.float64)
    ys = solve(METHODS[name], field, y0, ts, rtol=1e-2, atol=1e-2).ys
    assert float(ys.abs().max()) < 5 * float(y0.abs().max())
