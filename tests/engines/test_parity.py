"""Every engine against torchdiffeq called by hand: values, evaluations and steps."""

from __future__ import annotations

import pytest
import torch

from node_runner.engines import ENGINES
from node_runner.types import Dynamics, Method
from tests.problems import (
    ADAPTIVE,
    FIXED,
    METHODS,
    AdaptiveStepCounter,
    CountingField,
    FixedStepCounter,
    SmallField,
    has_option,
    make_method,
    nonlinear,
    solve,
    torchdiffeq_for,
)


TIMES = {
    "forward": torch.tensor([0.0, 0.31, 1.0], dtype=torch.float64),
    "backward": torch.tensor([1.0, 0.31, 0.0], dtype=torch.float64),
    "many": torch.linspace(0, 1, 17, dtype=torch.float64),
}


def counter(method: Method, field: torch.nn.Module) -> CountingField:
    """A counting field with the callbacks that torchdiffeq offers for the method."""
    if method.name == "scipy_solver":
        return CountingField(field)
    return AdaptiveStepCounter(field) if method.adaptive else FixedStepCounter(field)


def supported(engine: str, method: Method, field: Dynamics) -> None:
    built = ENGINES.get(engine)()
    reason = built.unsupported(method) or built.refuses(
        method, field, torch.zeros(2, 3, dtype=torch.float64), None, "off"
    )
    if reason:
        pytest.skip(reason)


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("engine", ENGINES.names())
def test_values_evaluations_and_steps_equal_torchdiffeq(engine: str, name: str, times: str):
    method = make_method(name, step_size=0.125) if has_option(name, "step_size") else METHODS[name]
    supported(engine, method, CountingField(SmallField()))
    y0 = torch.randn(5, 3, dtype=torch.float64)
    by_hand, odeint = counter(method, SmallField()), torchdiffeq_for(name).odeint
    with torch.no_grad():
        theirs = odeint(by_hand, y0, TIMES[times], rtol=1e-3, atol=1e-4, method=name, options=dict(method.options))
        watched = CountingField(SmallField())
        ours = solve(method, watched, y0, TIMES[times], rtol=1e-3, atol=1e-4, engine=engine)
    if engine == "torchdiffeq":
        assert torch.equal(ours.ys, theirs)
    else:
        torch.testing.assert_close(ours.ys, theirs, rtol=1e-12, atol=1e-12)
    assert ours.stats.nfe_forward == by_hand.calls == watched.calls
    if name != "scipy_solver":
        assert (ours.stats.accepted, ours.stats.rejected) == (by_hand.accepted, by_hand.rejected)
    assert (ours.stats.nfe_backward, ours.stats.accepted_backward, ours.stats.rejected_backward) == (0, 0, 0)
    assert ours.stats.seconds_forward > 0


@pytest.mark.parametrize("name", ADAPTIVE)
@pytest.mark.parametrize("engine", ENGINES.names())
def test_rejected_steps_are_counted(engine: str, name: str):
    def fast(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return -y + 40 * torch.cos(40 * t)

    method = make_method(name, first_step=0.5)
    supported(engine, method, fast)
    y0 = torch.ones(2, 2, dtype=torch.float64)
    by_hand, odeint = AdaptiveStepCounter(fast), torchdiffeq_for(name).odeint
    odeint(by_hand, y0, TIMES["forward"], rtol=1e-3, atol=1e-3, method=name, options={"first_step": 0.5})
    stats = solve(method, fast, y0, TIMES["forward"], rtol=1e-3, atol=1e-3, engine=engine).stats
    assert (stats.accepted, stats.rejected) == (by_hand.accepted, by_hand.rejected)
    assert stats.rejected > 0


@pytest.mark.parametrize("name", ["dopri5", "rk4"])
def test_a_norm_reaches_the_step_control_of_adaptive_methods_only(name: str):
    field, y0, _ = nonlinear()
    plain = solve(METHODS[name], field, y0, TIMES["forward"], rtol=1e-4, atol=1e-4)
    strict = solve(
        METHODS[name], field, y0, TIMES["forward"], rtol=1e-4, atol=1e-4, norm=lambda x: 1000 * x.abs().max()
    )
    assert (strict.stats.accepted > plain.stats.accepted) == METHODS[name].adaptive


@pytest.mark.parametrize("name", FIXED)
def test_fixed_steps_cost_the_same_at_every_tolerance(name: str):
    # The corrector of implicit Adams does look at the tolerance: it gets one iteration.
    options = {"max_iters": 1} if has_option(name, "max_order") and has_option(name, "max_iters") else {}
    method = make_method(name, step_size=0.25, **options)
    field, y0, _ = nonlinear()
    loose, tight = (solve(method, field, y0, TIMES["forward"], rtol=tol, atol=tol).stats for tol in (0.5, 0.1))
    assert (loose.nfe_forward, loose.accepted) == (tight.nfe_forward, tight.accepted)


@pytest.mark.parametrize("engine", ENGINES.names())
def test_an_engine_refuses_a_method_that_it_does_not_have(engine: str):
    assert "rkf99" in (ENGINES.get(engine)().unsupported(Method("rkf99", 4, adaptive=False)) or "")


@pytest.mark.parametrize("name", METHODS)
def test_the_reference_engine_runs_every_method(name: str):
    assert ENGINES.get("torchdiffeq")().unsupported(METHODS[name]) is None
