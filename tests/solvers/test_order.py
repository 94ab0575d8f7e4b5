"""Every solver converges at the order that it claims."""

from __future__ import annotations

import pytest
import torch

from tests.problems import METHODS, STEPPING, nonlinear, slope, solve, stepping


CLAIMING = [name for name in STEPPING if METHODS[name].order is not None]


def observed_order(name: str, halvings: range, **options: int) -> float:
    """Slope of the error at t = 2 over step sizes 2 / 2^k, which end there exactly: nothing is interpolated."""
    field, y0, exact = nonlinear()
    ts = torch.tensor([0.0, 2.0], dtype=torch.float64)
    sizes = [2.0 / 2**k for k in halvings]
    errors = []
    for size in sizes:
        solution = solve(stepping(name, size, **options), field, y0, ts, rtol=1e-13, atol=1e-13)
        assert (solution.stats.accepted, solution.stats.rejected) == (round(2 / size), 0)
        errors.append(float((solution.ys[-1] - exact(ts)[-1]).norm()))
    return slope(sizes, errors)


@pytest.mark.parametrize("name", CLAIMING)
def test_the_error_falls_with_the_step_at_the_order_of_the_method(name: str):
    order = METHODS[name].order
    assert order is not None
    # Steps small enough for the leading term to rule, large enough to stay above rounding.
    halvings = range(5, 8) if order <= 4 or name == "tsit5" else range(3, 7) if order <= 6 else range(1, 4)
    assert observed_order(name, halvings) == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize(("name", "order"), [("explicit_adams", 3), ("implicit_adams", 4), ("fixed_adams", 4)])
def test_adams_methods_with_max_order_4_have_three_steps_of_history(name: str, order: int):
    options = {"max_order": 4} if name == "explicit_adams" else {"max_order": 4, "max_iters": 50}
    assert observed_order(name, range(8, 10), **options) == pytest.approx(order, abs=0.25)
