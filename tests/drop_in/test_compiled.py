"""Calls that engine=compiled serves where it is asked to: as torchdiffeq to rounding, and only those that may be."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torchdiffeq
from torch import Tensor, nn

import node_runner
from node_runner.drop_in import compiling, decision
from node_runner.engines.compiled.engine import CompiledEngine
from node_runner.engines.compiled.inductor import missing
from node_runner.errors import ConfigError


TS = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
CALL: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5, "method": "dopri5", "options": {"first_step": 0.1}}


SERVED = "engine=compiled serves this call"


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The engine is asked for, with its steps called as they are written: see the last test for machine code."""
    engine = CompiledEngine.uncompiled(at_once_up_to=0)
    monkeypatch.setattr(decision, "_compilers", lambda: (engine,))
    node_runner.fast_path("compiled")
    yield
    node_runner.fast_path(None)


class Normalised(nn.Module):
    """Nothing that engine=native knows, and it counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.net = nn.LayerNorm(2), nn.Sequential(nn.Linear(2, 6), nn.Softplus(beta=2), nn.Linear(6, 2))
        self.nfe = 0

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        self.nfe += 1
        return self.net(self.norm(y)) - y * torch.cos(t)


class Quiet(Normalised):
    """The same without counting."""

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.net(self.norm(y)) - y * torch.cos(t)


class Pair(nn.Module):
    """A tuple of states of different shapes, the second the divergence of the first, as a flow has it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 2))

    def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        y, _ = state
        with torch.enable_grad():
            y = y.requires_grad_(True)
            f = self.net(y) * t
            columns = [torch.autograd.grad(f[:, i].sum(), y, create_graph=True)[0][:, i] for i in range(2)]
        return f, -sum(columns)


def start() -> Tensor:
    return torch.tensor([[0.5, -1.0], [1.5, 0.2], [-0.3, 0.9]], dtype=torch.float64, requires_grad=True)


def made(kind: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(3)
    return kind().double()


def explained(func: Any, y0: Any, adjoint: bool = False, **more: Any) -> str:
    return node_runner.explain(func, y0, TS, adjoint=adjoint, **{**CALL, **more})


def answer(
    module: Any, name: str, func: Any, y0: Any, wanted: list[Tensor], t: Tensor = TS, **more: Any
) -> list[Tensor]:
    """States and gradients."""
    ys = getattr(module, name)(func, y0, t, **{**CALL, **more})
    parts = [ys] if isinstance(ys, Tensor) else list(ys)
    loss = sum((torch.linspace(-1, 2, p.numel(), dtype=p.dtype).view_as(p) * p.sin()).sum() for p in parts)
    return [*parts, *torch.autograd.grad(loss, wanted)]


def assert_same(ours: list[Tensor], theirs: list[Tensor], tolerance: float = 1e-10) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=tolerance, atol=tolerance)


MORE: dict[str, dict[str, Any]] = {
    "dopri5": {},
    "bounds": {"method": "bosh3", "options": {"first_step": 0.05, "min_step": 0.001, "max_step": 0.1}},
    "step_size": {"method": "midpoint", "options": {"step_size": 0.07}},
    "cubic": {"method": "heun3", "options": {"step_size": 0.3, "interp": "cubic", "perturb": True}},
}


@pytest.mark.parametrize("direction", [1, -1], ids=["forward", "reversed"])
@pytest.mark.parametrize("name", ["odeint", "odeint_adjoint"])
@pytest.mark.parametrize("more", MORE)
def test_a_field_of_any_kind_is_served_and_counts_its_calls(more: str, name: str, direction: int):
    answers, counts = [], []
    t = TS if direction > 0 else TS.flip(0)
    for module in (torchdiffeq, node_runner):
        func, y0 = made(Normalised), start()
        answers.append(answer(module, name, func, y0, [y0, *func.parameters()], t, **MORE[more]))
        counts.append(func.nfe)
    assert_same(answers[1], answers[0])
    if more == "cubic" and name == "odeint_adjoint":
        assert "counts the calls" in explained(func, y0, True, **MORE[more])
    else:
        assert explained(func, y0, name == "odeint_adjoint", **MORE[more]) == SERVED
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("name", ["odeint", "odeint_adjoint"])
def test_a_tuple_of_states_is_served(name: str):
    answers = []
    for module in (torchdiffeq, node_runner):
        func, y0 = made(Pair), start()
        answers.append(answer(module, name, func, (y0, torch.zeros(3, dtype=y0.dtype)), [y0, *func.parameters()]))
    assert explained(func, (y0, torch.zeros(3, dtype=y0.dtype)), name == "odeint_adjoint").startswith("engine=compiled")
    assert_same(answers[1], answers[0])


def test_a_function_is_served_with_the_gradient_of_all_that_it_closes_over():
    net, answers = made(Normalised), []

    def times(factor: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda t, y: net.net(net.norm(y)) * factor

    context = torch.tensor([0.3, -0.8], dtype=torch.float64, requires_grad=True)
    for module in (torchdiffeq, node_runner):
        y0 = start()
        answers.append(answer(module, "odeint", times(context.sin()), y0, [y0, context, *net.parameters()]))
    assert_same(answers[1], answers[0])
    assert explained(times(context), y0) == SERVED
    assert "require a gradient" in explained(times(context), y0, adjoint_params=net.parameters())


def test_numbers_that_change_with_every_call_are_compiled_a_few_times_and_tensors_once(monkeypatch: pytest.MonkeyPatch):
    net, y0, made_for = made(Normalised), start(), []
    failure = compiling._failure
    monkeypatch.setattr(compiling, "_failure", lambda plan: (made_for.append(plan), failure(plan))[1])

    def times(rate: float | Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda t, y: net.net(net.norm(y)) * rate

    for step in range(20):
        rate = torch.tensor(1 / (1 + step), dtype=torch.float64)
        ours, theirs = (solver.odeint(times(rate), y0, TS, **CALL) for solver in (node_runner, torchdiffeq))
        assert_same([ours], [theirs])
    assert len(made_for) == 1
    made_for.clear()
    with pytest.warns(UserWarning, match="numbers change: it was compiled 8 times"):
        for step in range(20):
            rate = 1 / (1 + step)
            ours, theirs = (solver.odeint(times(rate), y0, TS, **CALL) for solver in (node_runner, torchdiffeq))
            assert_same([ours], [theirs])
    assert len(made_for) == compiling.MOST_VALUES
    assert "keep a number that changes in a tensor" in explained(times(0.123), y0)


WEIGHT = torch.tensor([[0.3, -1.0], [1.2, 0.1]], dtype=torch.float64, requires_grad=True)


def linear(t: Tensor, y: Tensor) -> Tensor:
    return torch.cat((y, y**3), dim=1) @ torch.cat((WEIGHT, -WEIGHT)) * scale()


def scale() -> float:
    return 0.5


def test_a_function_of_global_tensors_and_functions_is_served(monkeypatch: pytest.MonkeyPatch):
    for _ in range(2):  # the second with another helper
        answers = []
        for module in (torchdiffeq, node_runner):
            y0 = start()
            answers.append(answer(module, "odeint", linear, y0, [y0, WEIGHT]))
        assert explained(linear, y0) == SERVED
        assert_same(answers[1], answers[0])
        monkeypatch.setitem(globals(), "scale", lambda: -0.7)


@pytest.mark.parametrize("name", ["odeint", "odeint_adjoint"])
def test_a_method_or_function_with_adjoint_params_is_served(name: str):
    net, answers = made(Quiet), []
    params = {} if name == "odeint" else {"adjoint_params": tuple(net.parameters())}
    for func in (net.forward, lambda t, y: -net(t, y)):
        for module in (torchdiffeq, node_runner):
            y0 = start()
            answers.append(answer(module, name, func, y0, [y0, *net.parameters()], **params))
        assert explained(func, y0, **params) == SERVED
        assert_same(answers.pop(), answers.pop())
    if name == "odeint":
        assert "such as a counter" in explained(made(Normalised).forward, y0)
    else:
        assert "no nn.Module" in explained(func, y0, True)
        assert "adjoint_params" in explained(func, y0, adjoint_params=())


def test_frozen_parameters_are_served_by_both():
    for name in ("odeint", "odeint_adjoint"):
        answers = []
        for module in (torchdiffeq, node_runner):
            func, y0 = made(Normalised), start()
            func.norm.requires_grad_(False)
            answers.append(answer(module, name, func, y0, [y0, *func.net.parameters()]))
            assert func.norm.weight.grad is None
        assert explained(func, y0, name == "odeint_adjoint") == SERVED
        assert_same(answers[1], answers[0])


def test_second_derivatives_are_torchdiffeq_s():
    answers = []
    context = torch.tensor([0.3, -0.8], dtype=torch.float64, requires_grad=True)
    net = made(Pair)

    def times(factor: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda t, y: net.net(y).sin() * factor

    for module in (torchdiffeq, node_runner):
        y0 = start()
        ys = module.odeint(times(context.exp()), y0, TS, **CALL)
        first = torch.autograd.grad(ys.sum(), [y0, context], create_graph=True)
        loss = ys.square().sum() + sum(g.square().sum() for g in first)
        answers.append([ys, *first, *torch.autograd.grad(loss, [y0, context, *net.parameters()])])
    assert_same(answers[1], answers[0], 1e-8)


def test_states_of_a_served_tuple_may_be_changed_in_place():
    gradients = []
    for module in (torchdiffeq, node_runner):
        y0 = start()
        ys, _ = module.odeint(made(Pair), (y0, torch.zeros(3, dtype=y0.dtype)), TS, **CALL)
        ys += 1
        gradients += torch.autograd.grad(ys.square().sum(), y0)
    assert_same(gradients[1:], gradients[:1])


# --- what is seen although the call looks the same ------------------------------------------------------


def test_what_changes_between_calls_is_seen():
    net, factor, table = made(Pair).net, torch.ones(2, dtype=torch.float64), {"rate": 1.0}
    holder = type("Holder", (), {"rate": 1.0})
    rate = 1.0

    def func(t: Tensor, y: Tensor) -> Tensor:
        return net(y).sin() * factor * table["rate"] * holder.rate * rate

    def check() -> list[Tensor]:
        answers = []
        for module in (torchdiffeq, node_runner):
            y0 = start()
            answers.append(answer(module, "odeint", func, y0, [y0, *net.parameters()]))
        assert explained(func, start()) == SERVED
        assert_same(answers[1], answers[0])
        return answers[1]

    seen = [check()[0]]
    factor.mul_(1.5)
    seen.append(check()[0])
    factor = factor + 1
    seen.append(check()[0])
    table["rate"] = 0.3
    seen.append(check()[0])
    holder.rate = 2.2
    seen.append(check()[0])
    rate = -1.0
    seen.append(check()[0])
    torch.manual_seed(7)
    net = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    seen.append(check()[0])
    net[1] = nn.ReLU()
    seen.append(check()[0])
    ends = [round(float(ys[-1].detach().sum()), 9) for ys in seen]
    assert len(set(ends)) == len(ends)


LOG: list[float] = []


def noting(t: Tensor, y: Tensor) -> Tensor:
    LOG.append(1.0)
    return -y


def branching(t: Tensor, y: Tensor) -> Tensor:
    return -y if y.sum() > 0 else y


def timed(t: Tensor, y: Tensor) -> Tensor:
    return -y if t > 0.5 else y


def printing(t: Tensor, y: Tensor) -> Tensor:
    print("called")
    return -y


class Remembering(nn.Module):
    """Keeps the last slope."""

    def __init__(self) -> None:
        super().__init__()
        self.last = torch.zeros(3, 2, dtype=torch.float64)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        self.last = torch.sin(y)
        return self.last


class Stopping(nn.Module):
    """Reads what it counts."""

    def __init__(self) -> None:
        super().__init__()
        self.nfe = 0
        self.rate = nn.Parameter(torch.tensor(0.3))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        self.nfe += 1
        return self.rate * y / self.calls()

    def calls(self) -> int:
        return self.nfe


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "notes": (lambda: noting, "changes something of its own with every call"),
    "branch": (lambda: branching, "as a graph|numbers in a tensor"),
    "branch on time": (lambda: timed, "as a graph|numbers in a tensor"),
    "prints": (lambda: printing, "calls `print`"),
    "dropout": (lambda: nn.Sequential(nn.Linear(2, 2), nn.Dropout()), "positional argument"),
    "random": (lambda: lambda t, y: y + torch.randn_like(y), "draws random numbers"),
    "remembers": (Remembering, "puts a tensor of its own in another's place"),
    "counts": (Stopping, "counts in `nfe` and reads it"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_no_graph_says_is_refused_and_done_as_by_torchdiffeq(kind: str, capsys: pytest.CaptureFixture[str]):
    make, why = REFUSED[kind]
    reason = explained(make(), start().detach())
    assert reason.startswith("torchdiffeq serves this call")
    assert re.search(why, reason), reason
    assert LOG == []
    if kind == "dropout":
        return
    answers, traces = [], []
    for module in (torchdiffeq, node_runner):
        torch.manual_seed(0)
        LOG.clear()
        func = make()
        answers.append(module.odeint(func, start().detach(), TS, method="rk4", options={"step_size": 0.1}))
        last = func.last.tolist() if kind == "remembers" else None
        traces.append((len(LOG), capsys.readouterr().out, getattr(func, "nfe", 0), last))
    LOG.clear()
    assert torch.equal(*answers)
    assert traces[0] == traces[1]


def test_nothing_is_compiled_that_was_not_asked_for(monkeypatch: pytest.MonkeyPatch):
    y0 = start()
    node_runner.fast_path(True)
    assert explained(made(Normalised), y0).startswith("torchdiffeq")
    node_runner.fast_path(None)
    assert explained(made(Normalised), y0).startswith("torchdiffeq")
    monkeypatch.setenv("NODE_RUNNER_FAST", "compiled")
    assert explained(made(Normalised), y0).startswith("engine=compiled")
    monkeypatch.setenv("NODE_RUNNER_FAST", "compield")
    with pytest.raises(ConfigError, match="NODE_RUNNER_FAST is 'compield': it may be 0, 1 or compiled"):
        explained(made(Normalised), y0)
    with pytest.raises(ConfigError, match="fast_path takes True, False"):
        node_runner.fast_path("native")  # type: ignore[arg-type]


def test_both_reasons_are_given():
    reason = explained(nn.Linear(2, 2).double(), start())
    assert "not known to be linear layers" in reason
    assert "engine=compiled cannot serve" in reason


def test_what_cannot_be_compiled_is_torchdiffeq_s_after_one_warning(monkeypatch: pytest.MonkeyPatch):
    def fail(*args: Any) -> Callable[[], object]:
        def work() -> object:
            raise ConfigError("engine=compiled could not compile the step; use engine=torchdiffeq")

        return work

    monkeypatch.setattr(compiling, "_known", {})
    monkeypatch.setattr(CompiledEngine, "prepare", fail)
    func, y0 = made(Normalised), start()
    assert explained(func, y0).startswith("engine=compiled")
    with pytest.warns(UserWarning, match="could not compile the step: torchdiffeq serves this call") as seen:
        ours = answer(node_runner, "odeint", func, y0, [y0])
    assert seen[0].filename == __file__
    assert_same(ours, answer(torchdiffeq, "odeint", func, y0, [y0]), 0.0)
    assert "torchdiffeq serves this call: " in explained(func, y0)
    assert "could not compile the step" in explained(func, y0)
    answer(node_runner, "odeint", func, y0, [y0])  # with no warning, which would fail the test


@pytest.mark.skipif(missing("cpu") is not None, reason=str(missing("cpu")))
def test_machine_code_serves_any_number_of_outputs_and_calls_and_is_compiled_again_for_another_batch(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    engine = CompiledEngine(loop_up_to=0)
    monkeypatch.setattr(decision, "_compilers", lambda: (engine,))
    caplog.set_level(logging.INFO, "node_runner")
    call = {"method": "euler", "options": {"step_size": 0.2}}
    func = made(Normalised)

    def compare(y0: Tensor, t: Tensor, name: str = "odeint") -> int:
        before = len([r for r in caplog.records if "compiling" in r.message])
        answers = [answer(module, name, func, y0, [y0], t, **call) for module in (torchdiffeq, node_runner)]
        assert_same(answers[1], answers[0])
        return len([r for r in caplog.records if "compiling" in r.message]) - before

    assert compare(start(), TS) > 0
    assert compare(start(), torch.linspace(0, 2, 9, dtype=torch.float64)) == 0
    assert compare(start(), TS.flip(0)) == 0
    with torch.no_grad():
        func.net[0].bias.add_(0.5)
    assert compare(start(), TS) == 0
    assert compare(start()[:2].detach().requires_grad_(True), TS) > 0
    with torch.no_grad():
        ours, theirs = (module.odeint(func, start(), TS, **CALL | call) for module in (node_runner, torchdiffeq))
    assert not ours.requires_grad
    assert_same([ours], [theirs])
