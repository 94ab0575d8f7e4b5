"""The stiffness of a solve: right on linear fields, and a word at the end of a run where it matters."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from node_runner.models.parts.dynamics import Shifted, Widened, divergence_exact
from node_runner.runs.run import run
from node_runner.solving import Solved
from node_runner.stiffness import Stiffness, advice, decay, stability_limit, stiffness
from node_runner.types import Solution, SolveStats
from tests.problems import METHODS, differentiable, make_method
from tests.runs import make_run


class Linear(nn.Module):
    """y' = A y."""

    def __init__(self, a: list[list[float]]) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a, dtype=torch.float64))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return y @ self.a.T


NOW = torch.tensor(0.0, dtype=torch.float64)


@pytest.mark.parametrize(("name", "limit"), [("euler", 2.0), ("rk4", 2.785), ("bosh3", 2.513), ("dopri5", 3.307)])
def test_the_limit_of_stability_is_that_of_the_textbook(name: str, limit: float):
    tableau = METHODS[name].tableau
    assert tableau is not None
    assert stability_limit(tableau) == pytest.approx(limit, abs=0.006)


def test_the_rate_is_the_fastest_decay_of_each_sample():
    y = torch.randn(5, 2, dtype=torch.float64)
    assert decay(Linear([[-50.0, 3.0], [0.0, -1.0]]), NOW, y).tolist() == pytest.approx([50.0] * 5, rel=1e-3)
    # y' = -k y^3 decays at 3 k y^2.
    rates = decay(lambda t, y: -10 * y**3, NOW, torch.tensor([[1.0], [2.0]], dtype=torch.float64))
    assert rates.tolist() == pytest.approx([30.0, 120.0])


@pytest.mark.parametrize("field", [lambda t, y: 40 * y, lambda t, y: torch.ones_like(y), lambda t, y: y.detach()])
def test_what_grows_or_does_not_depend_on_the_state_has_no_rate_of_decay(field):
    assert decay(field, NOW, torch.ones(3, 2, dtype=torch.float64)).tolist() == [0.0] * 3


def test_stiffness_is_the_mean_step_times_the_rate_also_of_wrapped_fields():
    field = Linear([[-20.0, 0.0], [0.0, -1.0]])
    ts = torch.linspace(0.0, 4.0, 9, dtype=torch.float64)
    ys = torch.ones(9, 3, 2, dtype=torch.float64)
    stats = SolveStats(accepted=16)
    assert stiffness(Solved(field, Solution(ts, ys, stats))) == pytest.approx(5.0, rel=1e-3)
    assert stiffness(Solved(Shifted(field, torch.ones(3)), Solution(ts, ys, stats))) == pytest.approx(5.0, rel=1e-3)
    wide = Widened(field, (2,), [divergence_exact])
    states = torch.cat((ys, torch.zeros(9, 3, 1)), dim=2)
    assert stiffness(Solved(wide, Solution(ts, states, stats))) == pytest.approx(5.0, rel=1e-3)


@pytest.mark.parametrize("rate", [30.0, 1000.0])
def test_an_explicit_solve_is_at_its_limit_where_stability_bounds_it_and_is_told_so(rate: float):
    field = Linear([[-rate, rate - 1], [0.0, -1.0]])
    solve = differentiable(make_method("dopri5"), rtol=1e-3, atol=1e-4)
    probe = Stiffness(solve)
    with probe.watching():
        stats = solve(field, torch.ones(2, 2, dtype=torch.float64), torch.linspace(0, 10, 20).double()).stats
    value = probe.measured()["solver/stiffness"]
    assert 2.3 < value < 4.5
    sentence = advice(solve.method, value, stats.accepted)
    assert sentence is not None
    assert "bound by stability" in sentence
    assert "solver=radau5" in sentence
    assert probe.measured() == {}


def test_accuracy_bound_implicit_and_short_solves_are_not_told_so():
    field = Linear([[-1.0, 5.0], [-5.0, -1.0]])
    solve = differentiable(make_method("dopri5"), rtol=1e-6, atol=1e-7)
    probe = Stiffness(solve)
    with probe.watching():
        stats = solve(field, torch.ones(2, 2, dtype=torch.float64), torch.linspace(0, 3, 20).double()).stats
    assert stats.accepted > 10
    assert advice(solve.method, probe.measured()["solver/stiffness"], stats.accepted) is None
    assert advice(make_method("radau5"), 1e4, 100) is None
    assert advice(make_method("dopri5"), 3.2, 3) is None
    assert advice(make_method("dopri5"), None, None) is None
    assert advice(make_method("dopri5", batching=type(METHODS["dopri5"].batching).per_sample), 3.2, 100) is None


def test_it_is_measured_in_a_run_and_leaves_the_training_as_it_is(tmp_path: Path):
    result = run(make_run(trainer__steps=4), tmp_path / "run", live=False)
    assert math.isfinite(result["metrics"]["solver/stiffness"])
    assert result["advice"] == []
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert sum("solver/stiffness" in line for line in lines) == 2  # as often as memory/saved_mb
    assert sum("memory/saved_mb" in line for line in lines) == 2
