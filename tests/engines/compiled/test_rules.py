"""What the compiled engine serves, what it refuses and why, how it fails, and what it counts."""

from __future__ import annotations

import itertools
import logging
import random
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from node_runner.engines.compiled import compilation
from node_runner.engines.compiled import engine as module
from node_runner.engines.compiled.engine import CompiledEngine
from node_runner.engines.compiled.inductor import missing
from node_runner.errors import ConfigError, SolveFailed
from node_runner.fields.mlp import MLP
from node_runner.models.parts.dynamics import Shifted
from node_runner.settings import Capture
from node_runner.types import Dynamics, Gradient, Method
from tests.engines.compiled.test_equality import mlp
from tests.problems import CountingField, SmallField, differentiable, make_method


TS = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
Y0 = torch.tensor([[1.0, -0.5, 0.3], [0.2, 0.3, -0.1]], dtype=torch.float64)
ELSEWHERE = torch.ones(3, dtype=torch.float64)

compiles = pytest.mark.skipif(missing("cpu") is not None, reason=str(missing("cpu")))


def refusal(f: Dynamics, y0: Tensor = Y0, adjoint: str = "off") -> str | None:
    return CompiledEngine.uncompiled().refuses(make_method("dopri5"), f, y0, None, adjoint)


def field_of(*layers: nn.Module) -> nn.Module:
    """Layers as a field."""

    class Field(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(*layers)

        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return self.layers(y)

    return Field().double()


# --- refusals ------------------------------------------------------------------------------------------


def hooked() -> nn.Module:
    field = SmallField()
    field.first.register_forward_hook(lambda *args: None)
    return field


def by_numbers(t: Tensor, y: Tensor) -> Tensor:
    return y if y.sum() > 0 else -y


REPEATED = itertools.repeat(torch.ones(3, dtype=torch.float64))
LOG: list[int] = []


def from_elsewhere(t: Tensor, y: Tensor) -> Tensor:
    return y * next(REPEATED)


def by_numpy_s_numbers(t: Tensor, y: Tensor) -> Tensor:
    return y if np.random.rand() < 0.5 else -y  # noqa: NPY002


def by_lot(t: Tensor, y: Tensor) -> Tensor:
    return y if random.random() < 0.5 else -y


def noting(t: Tensor, y: Tensor) -> Tensor:
    LOG.append(1)
    return y


def printing(t: Tensor, y: Tensor) -> Tensor:
    print(t)
    return y


REFUSED = {
    "random": (lambda: field_of(nn.Dropout(0.5)), "draws random numbers"),
    "buffers": (lambda: field_of(nn.BatchNorm1d(3)), "writes to its own buffers"),
    "hooks": (hooked, "has hooks on Linear"),
    "counter": (lambda: CountingField(SmallField()), "changes something of its own with every call"),
    "branch": (lambda: by_numbers, "cannot be written down as a graph|decides by the numbers"),
    "elsewhere": (lambda: from_elsewhere, "reads a tensor that is kept outside of it"),
    "numpy's numbers": (lambda: by_numpy_s_numbers, "draws random numbers"),
    "python's numbers": (lambda: by_lot, "uses the module `random`"),
    "notes": (lambda: noting, "changes something of its own with every call"),
    "prints": (lambda: printing, "calls `print`"),
    "shape": (lambda: lambda t, y: y[:, :1], r"gives \(2, 1\) for a state of \(2, 3\)"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_field_that_is_no_graph_is_refused_in_a_sentence(kind: str):
    make, why = REFUSED[kind]
    field = make()
    state = torch.random.get_rng_state()
    before = dict(vars(field))
    buffers = [buffer.clone() for buffer in field.buffers()] if isinstance(field, nn.Module) else []
    message = refusal(field)
    assert message is not None
    assert message.startswith("engine=compiled")
    assert "\n" not in message
    torch.testing.assert_close(torch.random.get_rng_state(), state)
    assert re.search(why, message), message
    assert {k: v for k, v in vars(field).items() if isinstance(v, int)} == {
        k: v for k, v in before.items() if isinstance(v, int)
    }
    assert LOG == []
    if buffers:
        torch.testing.assert_close(list(field.buffers()), buffers)


@pytest.mark.parametrize(
    "make",
    [
        SmallField,
        lambda: field_of(nn.Dropout(0.5), nn.BatchNorm1d(3)).eval(),
        lambda: Shifted(SmallField(), torch.tensor([0.1, 0.2], dtype=torch.float64)),
        lambda: lambda t, y: y * ELSEWHERE,
        lambda: lambda t, y: torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64) * y,
        lambda: field_of(nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))),
    ],
    ids=["module", "evaluating", "wrapped", "global", "literal", "parametrised"],
)
def test_other_fields_are_served(make):
    assert refusal(make()) is None


def test_states_that_are_no_floats_of_32_or_64_bits_are_refused():
    assert "float16" in (refusal(SmallField(), Y0.half()) or "")


def test_methods_without_a_tableau_are_refused():
    assert "gl4" in (CompiledEngine().unsupported(make_method("gl4")) or "")
    assert CompiledEngine().unsupported(make_method("tsit5")) is None


@pytest.mark.parametrize("adjoint", ["on", "seminorm"])
def test_a_continuous_adjoint_needs_a_module(adjoint: str):
    assert "needs the vector field to be an nn.Module" in (refusal(lambda t, y: -y, adjoint=adjoint) or "")
    with pytest.raises(ConfigError, match=f"adjoint={adjoint} needs the vector field to be an nn.Module"):
        differentiable(make_method("dopri5"), adjoint, engine="compiled")(lambda t, y: -y, Y0, TS)


def test_a_gradient_for_the_output_times_is_refused():
    ts = TS.clone().requires_grad_(True)
    with pytest.raises(ConfigError, match="gives no gradient for the output times"):
        differentiable(make_method("dopri5"), "off", engine="compiled")(SmallField(), Y0, ts)


def test_a_verdict_is_reached_once_for_each_kind_of_field(monkeypatch: pytest.MonkeyPatch):
    engine, calls = CompiledEngine.uncompiled(), []
    real = module.trial
    monkeypatch.setattr(module, "trial", lambda *args: calls.append(1) or real(*args))
    for _ in range(3):
        engine.refuses(make_method("dopri5"), Shifted(SmallField(), torch.rand(2).double()), Y0, None, "off")
    assert len(calls) == 1
    engine.refuses(make_method("dopri5"), Shifted(SmallField(), torch.rand(1).double()), Y0[:1], None, "off")
    assert len(calls) == 2


# --- failures ------------------------------------------------------------------------------------------


def failure(engine: str, method: Method, f: Dynamics, ts: Tensor, rtol: float, atol: float) -> str:
    with pytest.raises(SolveFailed) as caught:
        differentiable(method, "off", rtol=rtol, atol=atol, engine=engine)(f, torch.ones(2, 1).double(), ts)
    return str(caught.value)


FAILURES = {
    "nan": (make_method("dopri5"), lambda t, y: y * float("nan"), 1e-6),
    "turns-nan": (make_method("bosh3"), lambda t, y: torch.where(t.abs() > 0.5, y * float("nan"), y), 1e-4),
    "infinite": (make_method("dopri5", max_steps=400), lambda t, y: y**2 * torch.sign(1 - t), 1e-3),
    "too-small": (make_method("dopri8", max_steps=400), lambda t, y: 1e30 * torch.sin(1e30 * y), 1e-9),
    "budget": (make_method("dopri5", max_steps=3, first_step=0.125, max_step=0.125), lambda t, y: -y, 1e-2),
}


@pytest.mark.parametrize("direction", [1, -1], ids=["forward", "backward"])
@pytest.mark.parametrize("kind", FAILURES)
def test_failures_have_the_reference_s_sentences(kind: str, direction: int):
    method, f, tolerance = FAILURES[kind]
    ts = direction * torch.tensor([0.0, 0.9], dtype=torch.float64)
    if kind == "infinite":
        ts, f = ts * 2, (lambda t, y: direction * y**2)
    sentences = [failure(engine, method, f, ts, tolerance, tolerance) for engine in ("compiled", "torchdiffeq")]
    assert sentences[0].split(" (")[0] == sentences[1].split(" (")[0]


@pytest.mark.parametrize("settings", [{"loop_up_to": 100}, {"capture": Capture.eager}], ids=["loop", "captured"])
@pytest.mark.parametrize("kind", FAILURES)
def test_loops_fail_where_single_steps_do(kind: str, settings: dict[str, Any]):
    method, f, tolerance = FAILURES[kind]
    ts = torch.tensor([0.0, 0.4, 1.8 if kind == "infinite" else 0.9], dtype=torch.float64)
    f = (lambda t, y: y**2) if kind == "infinite" else f
    sentences = []
    for own in (settings, {"loop_up_to": 0}):
        with pytest.raises(SolveFailed) as caught:
            CompiledEngine.uncompiled(**own).integrate(
                method, f, torch.ones(2, 1).double(), ts, rtol=tolerance, atol=tolerance, norm=None
            )
        sentences.append(str(caught.value))
    assert sentences[0] == sentences[1]


def test_a_capture_is_for_a_gpu():
    message = CompiledEngine(capture=Capture.compiled).refuses(make_method("dopri5"), SmallField(), Y0, None, "off")
    assert message == "engine.capture is for a state on a GPU: use engine.capture=off"


def test_times_that_do_not_increase_are_refused():
    times = torch.tensor([0.0, 1.0, 0.5], dtype=torch.float64)
    assert "refused the problem" in failure("compiled", make_method("dopri5"), lambda t, y: -y, times, 1e-3, 1e-3)


def test_a_failure_of_the_backward_solve_is_told_from_one_of_the_forward_solve():
    class Stiff(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rate = nn.Parameter(torch.tensor(30.0, dtype=torch.float64))

        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return -self.rate * y

    engine, gradient = CompiledEngine.uncompiled(), Gradient("on", 1e-12, 1e-12)
    method = make_method("dopri5", max_steps=30)
    y0 = torch.ones(1, 1, dtype=torch.float64, requires_grad=True)
    solution = engine.integrate(method, Stiff(), y0, TS[[0, 2]], rtol=1e-2, atol=1e-2, norm=None, gradient=gradient)
    with pytest.raises(SolveFailed, match=r"^in the backward solve of the adjoint: dopri5 spent its budget"):
        solution.ys.sum().backward()


# --- what autograd sees ---------------------------------------------------------------------------------


@pytest.mark.parametrize("adjoint", ["off", "checkpoint", "on", "seminorm"])
def test_a_second_backward_pass_gives_the_same_and_a_second_derivative_is_refused(adjoint: str):
    field, y0 = SmallField(), Y0.clone().requires_grad_(True)
    ys = differentiable(make_method("dopri5"), adjoint, engine="compiled")(field, y0, TS).ys
    first, second = (torch.autograd.grad(ys.square().sum(), y0, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    (gradient,) = torch.autograd.grad(ys.square().sum(), y0, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_parameters_that_changed_before_the_gradient_are_noticed():
    field = SmallField()
    ys = differentiable(make_method("dopri5"), "off", engine="compiled")(field, Y0, TS).ys
    with torch.no_grad():
        field.first.weight.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        ys.sum().backward()


def test_unused_and_frozen_parameters():
    class WithSpare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used = nn.Parameter(torch.eye(3, dtype=torch.float64))
            self.tied = self.used
            self.spare = nn.Parameter(torch.ones(3, dtype=torch.float64))
            self.frozen = nn.Parameter(torch.ones(3, dtype=torch.float64), requires_grad=False)

        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return -torch.tanh(y @ self.used) @ self.tied * self.frozen

    for adjoint in ("off", "on"):
        found = []
        for engine in ("compiled", "torchdiffeq"):
            field = WithSpare()
            method = make_method("dopri5", first_step=0.1)
            differentiable(method, adjoint, engine=engine)(field, Y0, TS).ys.sum().backward()
            assert field.frozen.grad is None
            assert field.spare.grad is None or not field.spare.grad.any()
            found.append(field.used.grad)
        torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-10)


def test_what_is_kept_depends_on_the_adjoint():
    kept = {}
    for adjoint in ("checkpoint", "on"):
        solution = differentiable(make_method("dopri5"), adjoint, engine="compiled")(SmallField(), Y0, TS)
        kept[adjoint] = solution.stats.kept_bytes, solution.stats.accepted
    size, steps = kept["checkpoint"]
    assert size >= 2 * steps * Y0.numel() * 8  # a state and a slope for each step
    assert kept["on"][0] == 0


def test_values_before_a_solve_turns_nan_are_kept():
    ys = differentiable(make_method("midpoint", step_size=0.25), "off", engine="compiled")(
        lambda t, y: torch.where(t > 0.5, y * float("nan"), y), Y0, torch.tensor([0.0, 0.3, 0.4, 1.0]).double()
    ).ys
    assert ys[:3].isfinite().all()
    assert ys[3].isnan().all()


# --- compilation ----------------------------------------------------------------------------------------


@compiles
@pytest.mark.slow
def test_tolerances_times_and_weights_do_not_compile_again_and_the_log_says_what_does(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    engine, method = CompiledEngine(), make_method("adaptive_heun")

    def solve(batch: int, tolerance: float, ts: Tensor) -> None:
        torch.manual_seed(batch)
        y0 = torch.randn(batch, 2)
        field = MLP((2,), width=4, depth=1)
        ours = engine.integrate(method, field, y0, ts, rtol=tolerance, atol=tolerance, norm=None).ys
        theirs = differentiable(method, rtol=tolerance, atol=tolerance)(field, y0, ts).ys
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)

    with caplog.at_level(logging.INFO, logger="node_runner"), torch.no_grad():
        solve(6, 1e-3, TS)
        first = engine.compile_seconds
        assert first > 0
        done = [caplog.text.count(f": compiled {kind} of ") for kind in ("begin", "step", "loop")]
        assert caplog.text.count("compiling") == sum(done) > 0
        solve(6, 1e-5, torch.linspace(1, 0, 5))
        assert engine.compile_seconds == first
        # How often is the question, and no longer to what; these are too many numbers for a loop.
        monkeypatch.setattr(compilation, "compile_graph", lambda graph, *_: lambda inputs: graph(*inputs))
        solve(40, 1e-3, TS)
        second = engine.compile_seconds
        assert second > first
        solve(40, 1e-4, TS)
        assert engine.compile_seconds == second


def test_a_torch_without_what_is_needed_is_said(monkeypatch: pytest.MonkeyPatch):
    from node_runner.engines.compiled import inductor

    monkeypatch.setattr(inductor, "NEEDED", (("torch._inductor.compile_fx", "no_such_function"),))
    inductor.missing.cache_clear()
    try:
        message = CompiledEngine().refuses(make_method("dopri5"), SmallField(), Y0, None, "off")
    finally:
        inductor.missing.cache_clear()
    assert message is not None and "lacks torch._inductor.compile_fx.no_such_function" in message


@compiles
@pytest.mark.slow
def test_what_is_prepared_is_not_compiled_again():
    # The network of test_compiled_loops, whose machine code is on disk by then.
    engine, method = CompiledEngine(), make_method("adaptive_heun")
    field = mlp()
    y0 = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    assert engine.refuses(method, field, y0, None, "off") is None
    work = engine.prepare(method, field, y0, None, "off")
    assert work is not None
    assert work == engine.prepare(method, field, torch.randn_like(y0).requires_grad_(), None, "off")
    assert work != engine.prepare(method, field, y0, None, None)
    field.eval()
    work()
    assert not field.training
    spent = engine.compile_seconds
    assert spent > 0
    ys = engine.integrate(method, field.train(), y0, TS, rtol=1e-2, atol=1e-2, norm=None).ys
    ys.sum().backward()
    assert engine.compile_seconds == spent


def test_nothing_is_to_be_prepared_where_nothing_is_compiled():
    assert CompiledEngine.uncompiled().prepare(make_method("dopri5"), SmallField(), Y0, None, "off") is None


@compiles
@pytest.mark.slow
def test_machine_code_that_gives_other_numbers_is_not_used(monkeypatch: pytest.MonkeyPatch):
    real = compilation.compile_graph

    def wrong(*arguments: object) -> object:
        code = real(*arguments)
        return lambda inputs: [2 * result for result in code(inputs)]

    monkeypatch.setattr(compilation, "compile_graph", wrong)
    with pytest.raises(ConfigError, match="gives other numbers than the graph") as caught, torch.no_grad():
        CompiledEngine().integrate(
            make_method("euler"), MLP((2,), width=5, depth=1), torch.randn(3, 2), TS, rtol=1, atol=1, norm=None
        )
    assert "\n" not in str(caught.value)


@compiles
@pytest.mark.slow
@pytest.mark.skipif(sys.version_info >= (3, 12), reason="setuptools is at peace from 3.12 on")
def test_a_process_that_has_looked_for_pip_can_compile():
    script = """
import importlib.util
importlib.util.find_spec("pip")
import torch
from node_runner.engines.compiled.engine import CompiledEngine
from node_runner.fields.mlp import MLP
from tests.problems import make_method
engine, ts = CompiledEngine(), torch.tensor([0.0, 1.0])
with torch.no_grad():
    y0 = torch.randn(3, 2)
    engine.integrate(make_method("euler"), MLP((2,), width=5, depth=1), y0, ts, rtol=1, atol=1, norm=None)
print(engine.compile_seconds > 0)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=300)
    assert done.stdout.strip() == "True", done.stderr
