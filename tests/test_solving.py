"""Tolerances, their schedule, and the clock on a solve's gradient."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from node_runner.adjoints import ADJOINTS
from node_runner.engines import ENGINES
from node_runner.errors import ConfigError
from node_runner.models.parts.block import ODEBlock
from node_runner.settings import ToleranceConfig
from node_runner.solving import Solve, Tolerances
from node_runner.types import Method
from tests.problems import METHODS, OF_THE_REFERENCE, SmallField, differentiable


def schedule(**more: float) -> Tolerances:
    config = ToleranceConfig(rtol=1e-5, atol=1e-6, start_rtol=1e-1, start_atol=1e-2, **more)
    return Tolerances(config)


def test_without_a_schedule_the_tolerance_is_the_same_at_every_progress():
    tolerances = Tolerances(ToleranceConfig(rtol=1e-3, atol=1e-4))
    for progress in (0.0, 0.5, 1.0):
        tolerances.progress = progress
        assert tolerances.forward() == (1e-3, 1e-4)
        assert tolerances.adjoint() == (1e-3, 1e-4)


def test_a_schedule_begins_at_its_start_and_reaches_its_end_at_its_share_of_training():
    tolerances = schedule(schedule_share=0.8)
    tolerances.progress = 0.0
    assert tolerances.forward() == (1e-1, 1e-2)
    for progress in (0.8, 0.9, 1.0):
        tolerances.progress = progress
        assert tolerances.forward() == pytest.approx((1e-5, 1e-6), rel=1e-12)


def test_a_schedule_moves_by_a_constant_factor():
    tolerances = schedule(schedule_share=0.8)
    logs = []
    for progress in (0.0, 0.2, 0.4, 0.6, 0.8):
        tolerances.progress = progress
        logs.append(math.log10(tolerances.forward()[0]))
    assert logs == pytest.approx([-1, -2, -3, -4, -5])


def test_a_schedule_over_no_share_of_training_is_at_its_end_from_the_first_step():
    tolerances = schedule(schedule_share=0.0)
    tolerances.progress = 0.0
    assert tolerances.forward() == pytest.approx((1e-5, 1e-6), rel=1e-12)


def test_evaluation_has_tolerances_of_its_own_and_ends_with_its_block():
    tolerances = schedule(eval_rtol=1e-7)
    tolerances.progress = 0.0
    with tolerances.evaluation():
        assert tolerances.forward() == (1e-7, 1e-6)
        with tolerances.evaluation():
            pass
        assert tolerances.forward() == (1e-7, 1e-6)
    assert tolerances.forward() == (1e-1, 1e-2)
    with pytest.raises(KeyError), tolerances.evaluation():
        raise KeyError
    assert tolerances.forward() == (1e-1, 1e-2)


def test_an_adjoint_has_tolerances_of_its_own_where_they_are_given():
    tolerances = schedule(adjoint_atol=1e-9)
    tolerances.progress = 0.0
    assert tolerances.adjoint() == (1e-1, 1e-9)


@pytest.mark.parametrize("given", ["start_rtol", "start_atol"])
def test_half_a_schedule_is_refused(given: str):
    with pytest.raises(ConfigError, match="needs both start_rtol and start_atol"):
        Tolerances(ToleranceConfig(**{given: 1e-2}))


def test_a_copy_of_a_model_solves_at_the_tolerances_of_the_run():
    solve = differentiable(METHODS["dopri5"], "off")
    block = ODEBlock(lambda shape: SmallField(), solve, {}, (2,))
    assert copy.deepcopy(block).solve is solve


def test_a_method_that_the_engine_does_not_have_is_refused_before_any_work():
    with pytest.raises(ConfigError, match="no method 'rkf99'"):
        Solve(
            ENGINES.get("torchdiffeq")(),
            Method("rkf99", 4, adaptive=False),
            ADJOINTS.get("off")(),
            Tolerances(ToleranceConfig()),
        )


@pytest.mark.parametrize("grad", [True, False], ids=["state-with-gradient", "state-without"])
@pytest.mark.parametrize("adjoint", OF_THE_REFERENCE)
def test_the_time_of_the_gradient_is_measured_and_its_clock_stopped(adjoint: str, grad: bool):
    y0 = torch.randn(4, 3, dtype=torch.float64, requires_grad=grad)
    solution = differentiable(METHODS["dopri5"], adjoint)(SmallField(), y0, torch.tensor([0.0, 1.0]))
    stats = solution.stats
    assert (stats.seconds_backward, stats.backward_began) == (0.0, None)
    solution.ys.sum().backward()
    stats.stop_backward()
    assert stats.seconds_backward > 0
    assert stats.backward_began is None
    once = stats.seconds_backward
    stats.stop_backward()
    assert stats.seconds_backward == once
