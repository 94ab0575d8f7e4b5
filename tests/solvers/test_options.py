"""Settings of the solvers reach the integrator."""

from __future__ import annotations

import math

import pytest
import torch
from torchdiffeq import odeint

from node_runner.errors import ConfigError
from node_runner.settings import Interpolation, ScipySolver
from tests.problems import (
    ADAPTIVE,
    FIXED,
    METHODS,
    AdaptiveStepCounter,
    CountingField,
    has_option,
    make_method,
    nonlinear,
    solve,
    torchdiffeq_for,
)


TS = torch.tensor([0.0, 0.37, 1.0], dtype=torch.float64)
ADAMS = [name for name in FIXED if has_option(name, "max_order")]


@pytest.mark.parametrize("name", FIXED)
def test_step_size_sets_the_number_of_steps(name: str):
    field, y0, _ = nonlinear()
    assert solve(make_method(name, step_size=0.125), field, y0, TS, rtol=1e-2, atol=1e-2).stats.accepted == 8
    assert solve(make_method(name, step_size=0.3), field, y0, TS, rtol=1e-2, atol=1e-2).stats.accepted == 4


@pytest.mark.parametrize("name", FIXED)
def test_without_a_step_size_the_output_times_are_the_steps(name: str):
    field, y0, _ = nonlinear()
    assert solve(make_method(name), field, y0, TS).stats.accepted == len(TS) - 1


@pytest.mark.parametrize("name", FIXED)
def test_cubic_interpolation_costs_one_evaluation_an_output_and_follows_the_field(name: str):
    field, y0, _ = nonlinear()
    ts = torch.linspace(0.0, 0.5, 11, dtype=torch.float64)
    linear, cubic = (
        solve(make_method(name, step_size=0.25, interp=interp), field, y0, ts, rtol=1e-2, atol=1e-2)
        for interp in (Interpolation.linear, Interpolation.cubic)
    )
    assert cubic.stats.nfe_forward == linear.stats.nfe_forward + len(ts) - 1
    torch.testing.assert_close(cubic.ys[[5, 10]], linear.ys[[5, 10]], rtol=0, atol=1e-15)
    # Within a step: a straight line in the one, a curve in the other.
    bends = [float(solution.ys[:6].diff(n=2, dim=0).abs().max()) for solution in (linear, cubic)]
    assert bends[0] < 1e-15
    assert bends[1] > 1e-4


@pytest.mark.parametrize("name", FIXED)
def test_perturb_moves_the_ends_of_a_step_inside_it(name: str):
    field, y0, _ = nonlinear()
    times: list[float] = []

    def watched(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        times.append(float(t))
        return field(t, y)

    solve(make_method(name, step_size=1.0, perturb=True), watched, y0, TS[[0, 2]])
    assert 0.0 < min(times) < 1e-300
    assert max(times) < 1.0


@pytest.mark.parametrize("name", ADAMS)
def test_max_order_and_max_iters_reach_torchdiffeq(name: str):
    field, y0, _ = nonlinear()
    options = {"max_order": 5} if name == "explicit_adams" else {"max_order": 5, "max_iters": 9}
    ours = solve(make_method(name, step_size=0.05, **options), field, y0, TS).ys
    theirs = odeint(
        CountingField(field), y0, TS, rtol=1e-6, atol=1e-6, method=name, options={"step_size": 0.05, **options}
    )
    default = odeint(CountingField(field), y0, TS, rtol=1e-6, atol=1e-6, method=name, options={"step_size": 0.05})
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours, default)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_max_step_bounds_every_step(name: str):
    field, y0, _ = nonlinear()
    free = solve(METHODS[name], field, y0, TS, rtol=1e-1, atol=1e-1)
    bounded = solve(make_method(name, max_step=0.05), field, y0, TS, rtol=1e-1, atol=1e-1)
    assert bounded.stats.accepted >= 20 > free.stats.accepted


@pytest.mark.parametrize("name", [name for name in ADAPTIVE if METHODS[name].tableau is not None])
def test_first_step_saves_the_evaluation_that_would_estimate_it(name: str):
    field, y0, _ = nonlinear()
    stages = solve(make_method(name, first_step=0.001), field, y0, TS, rtol=1e-3, atol=1e-3).stats
    per_step = (stages.nfe_forward - 1) / (stages.accepted + stages.rejected)
    estimated = solve(make_method(name), field, y0, TS, rtol=1e-3, atol=1e-3).stats
    assert per_step == int(per_step)
    assert estimated.nfe_forward == 2 + per_step * (estimated.accepted + estimated.rejected)


@pytest.mark.parametrize(
    "options",
    [{"first_step": 0.01}, {"safety": 0.5}, {"ifactor": 2.0}, {"dfactor": 0.5, "first_step": 1.0}, {"min_step": 0.2}],
    ids=lambda options: next(iter(options)),
)
@pytest.mark.parametrize("name", ADAPTIVE)
def test_step_control_reaches_torchdiffeq(name: str, options: dict[str, float]):
    field, y0, _ = nonlinear()
    counter = AdaptiveStepCounter(field)
    odeint = torchdiffeq_for(name).odeint
    theirs = odeint(counter, y0, TS, rtol=1e-4, atol=1e-4, method=name, options=dict(options))
    ours = solve(make_method(name, **options), field, y0, TS, rtol=1e-4, atol=1e-4)
    assert torch.equal(ours.ys, theirs)
    default = AdaptiveStepCounter(field)
    odeint(default, y0, TS, rtol=1e-4, atol=1e-4, method=name)
    assert counter.sizes != default.sizes


@pytest.mark.parametrize("solver", list(ScipySolver), ids=lambda solver: solver.value)
def test_scipy_runs_the_solver_that_was_asked_for(solver: ScipySolver, monkeypatch: pytest.MonkeyPatch):
    import torchdiffeq._impl.scipy_wrapper as wrapper

    asked: list[dict[str, object]] = []
    solve_ivp = wrapper.solve_ivp
    monkeypatch.setattr(wrapper, "solve_ivp", lambda *args, **more: asked.append(more) or solve_ivp(*args, **more))
    field, y0, exact = nonlinear()
    method = make_method("scipy_solver", solver=solver, max_step=0.2)
    ys = solve(method, field, y0, TS, rtol=1e-7, atol=1e-7).ys
    torch.testing.assert_close(ys, exact(TS), rtol=0, atol=1e-4)
    assert (asked[0]["method"], asked[0]["max_step"]) == (solver.value, 0.2)
    assert (asked[0]["rtol"], asked[0]["atol"]) == (1e-7, 1e-7)


def test_without_a_limit_steps_may_be_of_any_length():
    assert METHODS["dopri5"].options["max_step"] == math.inf
    assert METHODS["scipy_solver"].options["max_step"] == math.inf


def test_a_max_step_below_min_step_is_refused():
    with pytest.raises(ConfigError, match=r"solver\.max_step: expected at least solver\.min_step=0\.5, got 0\.1"):
        make_method("dopri5", min_step=0.5, max_step=0.1)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_named_as_torchdiffeq_names_it(name: str):
    assert METHODS[name].name == name


@pytest.mark.parametrize("name", METHODS)
def test_a_tolerance_plays_a_part_exactly_where_a_method_says_so(name: str):
    field, y0, _ = nonlinear()
    ts = torch.linspace(0, 2, 12, dtype=torch.float64)
    patient = {"max_iters": 50} if has_option(name, "max_iters") else {}
    loose, tight = (solve(make_method(name, **patient), field, y0, ts, rtol=tol, atol=tol).ys for tol in (1e-1, 1e-8))
    assert torch.equal(loose, tight) is not METHODS[name].has_tolerance
