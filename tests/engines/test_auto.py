"""engine=auto: when it has a solve compiled."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from node_runner.adjoints import ADJOINTS
from node_runner.engines.auto import Auto
from node_runner.engines.compiled.engine import CompiledEngine
from node_runner.errors import ConfigError
from node_runner.library import solver
from node_runner.settings import ToleranceConfig
from node_runner.solvers import SOLVERS
from node_runner.solving import Solve, Tolerances
from node_runner.types import Method, Tableau


TS = torch.linspace(0, 1, 5)


class Product(nn.Module):
    """A field that is no multilayer perceptron."""

    time_dependent = False

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return y * self.linear(y)


@pytest.fixture
def solve(monkeypatch: pytest.MonkeyPatch) -> Solve:
    """dopri5 with engine=auto, its compiled steps called as they are written."""
    monkeypatch.setattr(CompiledEngine, "_compiles", False)
    method = SOLVERS.get("dopri5")("dopri5")
    return Solve(Auto(compile_from=100), method, ADJOINTS.get("off")(), Tolerances(ToleranceConfig()))


def served(solve: Solve, field: nn.Module, y0: Tensor) -> str | None:
    solve(field, y0, TS)
    return solve.served_by


@pytest.mark.parametrize(("steps", "engine"), [(0, "torchdiffeq"), (99, "torchdiffeq"), (100, "compiled")])
def test_a_field_is_compiled_for_a_training_that_is_long_enough(solve: Solve, steps: int, engine: str):
    solve.expect(steps)
    assert served(solve, Product(), torch.ones(4, 2)) == engine


def test_the_run_says_why_it_is_not_compiled(solve: Solve):
    solve.expect(99)
    with solve.rehearsal() as choices:
        solve(Product(), torch.ones(4, 2), TS)
    assert choices[0].refused["compiled"] == (
        "engine=compiled is taken from 100 training steps on (engine.compile_from), and this run has 99"
    )


def test_evaluations_and_a_smaller_last_batch_are_not_compiled(solve: Solve):
    field = Product()
    solve.expect(100)
    with solve.rehearsal():
        solve(field, torch.ones(4, 2), TS)
    assert served(solve, field, torch.ones(4, 2)) == "compiled"
    assert served(solve, field, torch.ones(3, 2)) == "torchdiffeq"
    with torch.no_grad():
        assert served(solve, field, torch.ones(4, 2)) == "torchdiffeq"
    assert served(solve, field, torch.ones(4, 2)) == "compiled"


def test_without_a_rehearsal_the_first_batch_decides(solve: Solve):
    field = Product()
    solve.expect(100)
    engines = [served(solve, field, torch.ones(n, 2)) for n in (4, 4, 3, 4)]
    assert engines == [
        "compiled",
        "compiled",
        "torchdiffeq",
        "compiled",
    ]


def test_what_cannot_be_compiled_is_said_and_served_by_the_next_engine(
    solve: Solve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def fail() -> None:
        raise ConfigError("engine=compiled could not compile this; use engine=torchdiffeq")

    monkeypatch.setattr(CompiledEngine, "prepare", lambda *arguments: fail)
    field = Product()
    solve.expect(100)
    with solve.rehearsal() as choices:
        solve(field, torch.ones(4, 2), TS)
    (choice,) = choices
    assert choice.engine == "compiled" and choice.work is not None
    choice.work()
    assert "could not compile this; use engine=torchdiffeq; this run does" in caplog.text
    assert served(solve, field, torch.ones(4, 2)) == "torchdiffeq"


def test_where_none_can_serve_it_is_no_advice_to_take_auto():
    tableau = Tableau(c=(0.0, 2 / 3), a=((0.0, 0.0), (2 / 3, 0.0)), b=(1 / 4, 3 / 4))
    method = Method("ralston", 2, adaptive=False, tableau=tableau)
    solve = Solve(Auto(), method, ADJOINTS.get("off")(), Tolerances(ToleranceConfig()))
    with pytest.raises(ConfigError, match=r"engine=auto has none that can serve: .*has no method 'ralston'") as refusal:
        solve(Product(), torch.ones(4, 2), TS)
    assert "use engine=auto" not in str(refusal.value)


def test_an_engine_that_cannot_serve_points_to_one_that_can_auto_before_any_other():
    def alone(engine: str, adjoint: str = "off", **settings: Any) -> Solve:
        return solver("dopri5", engine=engine, adjoint=adjoint, **settings)

    y0 = torch.ones(4, 2)
    with pytest.raises(ConfigError, match=r"^engine=native is written for .* is none: .*; use engine=auto, which"):
        alone("native")(Product(), y0, TS)
    # It would be compiled, which auto weighs against the length of a training.
    with pytest.raises(ConfigError, match=r"^engine=native is written for .* is none: .*; use engine=compiled, which"):
        alone("native", adjoint="checkpoint")(Product(), y0, TS)
    with pytest.raises(ConfigError, match=r"use solver\.batching=shared, or engine=auto, which serves this$"):
        alone("torchdiffeq", batching="per_sample")
    # What no engine can do is no matter of the engine.
    with pytest.raises(ConfigError, match=r"got \(4,\): use solver\.batching=shared$"):
        alone("lanes", batching="per_sample")(lambda t, y: -y, torch.ones(4), TS)


def test_an_engine_that_was_only_held_back_is_named_where_no_other_serves():
    tableau = Tableau(c=(0.0, 2 / 3), a=((0.0, 0.0), (2 / 3, 0.0)), b=(1 / 4, 3 / 4))
    method = Method("ralston", 2, adaptive=False, tableau=tableau)
    solve = Solve(Auto(compile_from=1000), method, ADJOINTS.get("off")(), Tolerances(ToleranceConfig()))
    solve.expect(2)
    with pytest.raises(ConfigError, match=r"; use engine=compiled, which compiles whatever it costs$"):
        solve(Product(), torch.ones(4, 2), TS)
