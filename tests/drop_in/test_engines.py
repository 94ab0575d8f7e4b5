"""Calls that an engine serves: as torchdiffeq to rounding, and only those that may be."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torchdiffeq
from torch import Tensor, nn

import node_runner
from node_runner.drop_in import decision
from node_runner.drop_in.flattened import flat
from node_runner.drop_in.plan import Plan, Request
from node_runner.engines.compiler import compiler
from node_runner.fields.mlp import MLP
from tests.engines.equality import assert_finite_differences_agree
from tests.problems import SmallField


needs_compiler = pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler for engine=native")

TS = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)


class Net(nn.Module):
    """A field as a textbook has it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2)).double()

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.net(y)


class TimedNet(nn.Module):
    """The same, told the time."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 8), nn.SiLU(), nn.Linear(8, 2)).double()

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.net(torch.cat((y, t.expand(len(y), 1)), dim=1))


class DemoField(nn.Module):
    """The field of torchdiffeq's examples/ode_demo.py."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 50), nn.Tanh(), nn.Linear(50, 2)).double()
        for layer in self.net.modules():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, mean=0, std=0.1)
                nn.init.constant_(layer.bias, val=0)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.net(y**3)


@pytest.fixture(autouse=True)
def switch() -> Iterator[None]:
    """As it was."""
    yield
    node_runner.fast_path(None)


def made(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(3)
    return kind()


def start() -> Tensor:
    return torch.tensor([[0.5, -1.0], [1.5, 0.2], [-0.3, 0.9]], dtype=torch.float64, requires_grad=True)


def by_an_engine(ys: Tensor) -> bool:
    """Whether the native engine made these states."""
    node = ys.grad_fn
    while node is not None and type(node).__name__ != "DifferentiableBackward":
        node = next((inner for inner, _ in node.next_functions if inner is not None), None)
    return node is not None


def answer(
    module: Any, name: str, kind: type[nn.Module], t: Tensor, y0: Tensor | None = None, **more: Any
) -> tuple[Tensor, list[Tensor]]:
    field, y0 = made(kind), start() if y0 is None else y0
    ys = getattr(module, name)(field, y0, t, **{"rtol": 1e-4, "atol": 1e-5, **more})
    weights = torch.linspace(-1, 2, ys.numel(), dtype=ys.dtype).view_as(ys)
    return ys, list(torch.autograd.grad((weights * ys.sin()).sum(), [y0, *field.parameters()]))


def states(*shape: int) -> Tensor:
    """Of the size of the demo's."""
    generator = torch.Generator().manual_seed(1)
    return (1.5 * torch.randn(*shape, generator=generator, dtype=torch.float64)).requires_grad_(True)


DEMO_TS = torch.linspace(0, 25, 1000, dtype=torch.float64)[:10]


@needs_compiler
@pytest.mark.parametrize("more", [{}, {"method": "rk4"}], ids=["dopri5", "rk4"])
@pytest.mark.parametrize("name", ["odeint", "odeint_adjoint"])
@pytest.mark.parametrize("shape", [(1, 2), (20, 1, 2), (2,), (2, 3, 2)], ids=str)
def test_torchdiffeq_s_demo_is_served_at_every_shape_of_state(shape: tuple[int, ...], name: str, more: dict[str, Any]):
    options = {} if more else {"options": {"first_step": 0.01}}
    call = {"rtol": 1e-7, "atol": 1e-9, **more, **options}
    field, y0 = made(DemoField), states(*shape)
    assert node_runner.explain(field, y0, DEMO_TS, adjoint=name == "odeint_adjoint", **call).startswith("engine=native")
    theirs, ours = (answer(module, name, DemoField, DEMO_TS, y0, **call) for module in (torchdiffeq, node_runner))
    assert by_an_engine(ours[0])
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-10, atol=1e-10)
    for mine, other in zip(ours[1], theirs[1], strict=True):
        assert mine.shape == other.shape
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-10)


class Counted:
    """A field that counts its calls, of which nobody knows what it is."""

    def __init__(self, field: nn.Module) -> None:
        self.field = field
        self.calls = 0

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        self.calls += 1
        return self.field(t, y)


@needs_compiler
@pytest.mark.parametrize("shape", [(1, 2), (20, 1, 2), (2,)], ids=str)
def test_torchdiffeq_s_demo_takes_torchdiffeq_s_evaluations(shape: tuple[int, ...]):
    field, y0 = made(DemoField), states(*shape).detach()
    request = Request(field, y0, 100 * DEMO_TS, 1e-7, 1e-9, None, None, None)
    plan = decision.decide(request)
    assert isinstance(plan, Plan)
    solution = plan.engine.integrate(
        plan.method, plan.field, flat(y0), request.t, rtol=plan.rtol, atol=plan.atol, norm=None, gradient=plan.gradient
    )
    counted = Counted(field)
    torchdiffeq.odeint(counted, y0, request.t)
    assert solution.stats.nfe_forward == counted.calls > 20


@needs_compiler
def test_a_field_of_flat_states_is_that_of_the_states_as_they_are():
    field, y0 = made(DemoField), states(2, 3, 2)
    plan = decision.decide(Request(field, y0, DEMO_TS, 1e-7, 1e-9, None, None, None))
    assert isinstance(plan, Plan)
    torch.testing.assert_close(plan.field(TS[0], flat(y0)), flat(field(TS[0], y0)))


@needs_compiler
def test_gradients_of_a_state_in_two_leading_dimensions_agree_with_finite_differences():
    # All steps of one size, so that the step control has no part in it.
    field, y0 = made(DemoField), states(2, 2, 2)
    options = {"first_step": 0.1, "min_step": 0.1, "max_step": 0.1}

    def loss() -> Tensor:
        return node_runner.odeint(field, y0, TS, rtol=1e-3, atol=1e-3, method="dopri5", options=options).sin().sum()

    assert by_an_engine(loss())
    assert_finite_differences_agree(loss, [y0, *field.parameters()], every=7)


@needs_compiler
def test_a_field_that_runs_on_batches_of_vectors_only_is_refused_elsewhere():
    field = made(TimedNet)
    assert "it does not run on states (B, 1, D)" in why(field, states(3, 1, 2))
    assert "it does not run on states (D)" in why(field, states(2))
    package = MLP((2,)).double()
    assert "engine=native serves" in node_runner.explain(package, states(3, 2), TS)
    assert "MLP is for states (B, D), and the state is of shape (3, 1, 2)" in why(package, states(3, 1, 2))


SERVED: dict[str, dict[str, Any]] = {
    "first_step": {"method": "dopri5", "options": {"first_step": 0.05}},
    "bounds": {"method": "bosh3", "options": {"first_step": 0.05, "min_step": 0.001, "max_step": 0.1}},
    "control": {"method": "dopri8", "options": {"first_step": 0.2, "safety": 0.8, "ifactor": 4, "dfactor": 0.5}},
    "rk4": {"method": "rk4"},
    "step_size": {"method": "midpoint", "options": {"step_size": 0.07}},
    "cubic": {"method": "heun3", "options": {"step_size": 0.3, "interp": "cubic", "perturb": True}},
    "steps": {"method": "dopri5", "options": {"first_step": 0.1, "max_num_steps": 1000}},
    "dtype": {"method": "dopri5", "options": {"dtype": torch.float64, "first_step": 0.1}},
    "tolerance tensors": {
        "rtol": torch.tensor(1e-3), "atol": torch.tensor(1e-4), "method": "dopri5", "options": {"first_step": 0.1}
    },
}  # fmt: skip


@needs_compiler
@pytest.mark.parametrize("direction", [1, -1], ids=["forward", "reversed"])
@pytest.mark.parametrize("name", ["odeint", "odeint_adjoint"])
@pytest.mark.parametrize("kind", [Net, TimedNet])
@pytest.mark.parametrize("call", SERVED)
def test_a_served_call_has_torchdiffeq_s_values_and_gradients(
    call: str, kind: type[nn.Module], name: str, direction: int
):
    t, more = TS if direction == 1 else TS.flip(0), SERVED[call]
    adjoint = name == "odeint_adjoint"
    assert "engine=native serves" in node_runner.explain(made(kind), start(), t, adjoint=adjoint, **more)
    theirs, ours = (answer(module, name, kind, t, **more) for module in (torchdiffeq, node_runner))
    assert by_an_engine(ours[0])
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-10, atol=1e-10)
    for mine, other in zip(ours[1], theirs[1], strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-8)


@needs_compiler
@pytest.mark.parametrize(
    "more",
    [
        {"adjoint_options": {"norm": "seminorm"}},
        {"adjoint_rtol": 1e-6, "adjoint_atol": 1e-7},
        {"adjoint_method": "dopri5", "method": "dopri5", "adjoint_options": {}},
    ],
    ids=["seminorm", "tolerance", "the same"],
)
def test_the_adjoint_s_settings_reach_the_engine(more: dict[str, Any]):
    assert "engine=native serves" in node_runner.explain(made(Net), start(), TS, **more)
    theirs, ours = (answer(module, "odeint_adjoint", Net, TS, **more) for module in (torchdiffeq, node_runner))
    for mine, other in zip(ours[1], theirs[1], strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-8)


@needs_compiler
def test_a_first_step_that_is_estimated_is_a_constant_to_us_and_not_to_torchdiffeq():
    differences = []
    for options in ({}, {"first_step": 0.05}):
        theirs, ours = (
            answer(module, "odeint", Net, TS, method="dopri5", options=options, rtol=1e-2, atol=1e-2)
            for module in (torchdiffeq, node_runner)
        )
        torch.testing.assert_close(ours[0], theirs[0], rtol=1e-10, atol=1e-10)
        differences.append(max(float((a - b).abs().max()) for a, b in zip(ours[1], theirs[1], strict=True)))
    assert differences[0] > 1e-8  # of the order of the tolerance
    assert differences[1] < 1e-11


@needs_compiler
def test_tsit5_is_served_too():
    assert "engine=native serves" in node_runner.explain(made(Net), start(), TS, method="tsit5")
    ours = answer(node_runner, "odeint", Net, TS, method="tsit5", rtol=1e-8, atol=1e-9)
    node_runner.fast_path(False)
    slow = answer(node_runner, "odeint", Net, TS, method="tsit5", rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(ours[0], slow[0], rtol=1e-12, atol=1e-12)
    assert by_an_engine(ours[0])
    assert not by_an_engine(slow[0])


def why(func: Any = None, y0: Any = None, t: Tensor | None = None, **more: Any) -> str:
    func = made(Net) if func is None else func
    text = node_runner.explain(func, start() if y0 is None else y0, TS if t is None else t, **more)
    assert "\n" not in text
    who, reason = text.split(" serves this call: ")
    assert who in ("torchdiffeq", "radauIIA5 of node-runner in torchdiffeq's loop")
    return reason


class Noting(Net):
    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        self.times.append(t.item())
        return self.net(y)


def frozen() -> nn.Module:
    field = made(Net)
    field.net[0].bias.requires_grad_(False)
    return field


def hearing() -> nn.Module:
    field = made(Net)
    field.callback_step_adjoint = lambda t, y, dt: None
    return field


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "notes": ({"func": Noting()}, "self.times.append"),
    "function": ({"func": lambda t, y: -y}, "it names no module"),
    "callbacks": ({"func": hearing()}, "the field has callback_step_adjoint"),
    "tuple": ({"y0": (torch.zeros(2), torch.zeros(1))}, "tuple"),
    "complex": ({"y0": torch.zeros(2, 2, dtype=torch.complex128)}, "complex128"),
    "other size": ({"y0": torch.zeros(2, 1, 3, dtype=torch.float64)}, "needs states (B, 2), got (2, 3)"),
    "no dimension": ({"y0": torch.tensor(0.5, dtype=torch.float64)}, "no dimension"),
    "empty": ({"y0": torch.zeros(0, 2, dtype=torch.float64)}, "no numbers"),
    "float32": ({"y0": torch.zeros(2, 2), "t": TS.float()}, "parameters of the state's dtype"),
    "mixed": ({"y0": torch.zeros(2, 2)}, "differ in dtype"),
    "t grad": ({"t": TS.clone().requires_grad_(True)}, "t requires a gradient"),
    "one time": ({"t": TS[:1]}, "at least two times"),
    "unsorted": ({"t": TS[[0, 2, 1]]}, "neither increases nor decreases"),
    "event": ({"event_fn": lambda t, y: t}, "event"),
    "tolerances": ({"rtol": torch.ones(3, 2)}, "rtol is not one number"),
    "norm": ({"method": "dopri5", "options": {"norm": torch.linalg.vector_norm}}, "option norm"),
    "jump_t": ({"method": "dopri5", "options": {"jump_t": TS[1:2]}}, "option jump_t"),
    "max_num_steps": ({"method": "dopri5", "options": {"max_num_steps": 5.5}}, "option max_num_steps"),
    "grid": ({"method": "rk4", "options": {"grid_constructor": lambda f, y, t: t}}, "option grid_constructor"),
    "interp": ({"method": "rk4", "options": {"interp": "quintic"}}, "'quintic'"),
    "zero step": ({"method": "rk4", "options": {"step_size": 0.0}}, "not above 0"),
    "tensor option": ({"method": "dopri5", "options": {"first_step": TS[1]}}, "not a plain number"),
    "adams": ({"method": "implicit_adams"}, "no explicit Runge-Kutta method"),
    "scipy": ({"method": "scipy_solver"}, "no explicit Runge-Kutta method"),
    "implicit": ({"method": "radauIIA5"}, "no explicit Runge-Kutta method"),
    "unknown": ({"method": "rk99"}, "no explicit Runge-Kutta method"),
    "frozen": ({"func": frozen(), "adjoint": True}, "frozen parameters"),
    "adjoint_params": ({"adjoint_params": ()}, "adjoint_params"),
    "adjoint_method": ({"adjoint_method": "rk4"}, "method of its own"),
    "adjoint_options": ({"adjoint_options": {"first_step": 0.1}}, "adjoint_options are not options"),
    "adjoint norm": ({"adjoint_options": {"norm": torch.linalg.vector_norm}}, "norm of its own"),
    "adjoint_rtol": ({"adjoint_rtol": torch.ones(3)}, "adjoint_rtol is not one number"),
}  # fmt: skip


@needs_compiler
@pytest.mark.parametrize("name", REFUSED)
def test_the_reason_is_given_in_words(name: str):
    call, reason = REFUSED[name]
    assert reason in why(**call)


@needs_compiler
def test_the_surroundings_of_a_call_count():
    with torch.autocast("cpu"):
        assert "autocast" in why()
    reasons: list[str] = []
    field = made(Net)

    def end(y0: Tensor) -> Tensor:
        reasons.append(why(field, y0))
        return node_runner.odeint(field, y0[None], TS, method="rk4")[-1].sum()

    torch.func.grad(end)(start().detach()[0])
    assert "torch.func" in reasons[0]


@needs_compiler
def test_frozen_parameters_are_served_by_odeint():
    field = frozen()
    ys = node_runner.odeint(field, start(), TS)
    assert by_an_engine(ys)
    ys.sum().backward()
    assert field.net[0].bias.grad is None
    assert field.net[0].weight.grad is not None


@needs_compiler
def test_what_forward_notes_is_noted_as_with_torchdiffeq():
    fields = Noting(), Noting()
    for module, field in zip((torchdiffeq, node_runner), fields, strict=True):
        torch.manual_seed(3)
        field.net = made(Net).net
        module.odeint(field, start(), TS, rtol=1e-4, atol=1e-5)
    assert fields[0].times == fields[1].times != []


@needs_compiler
def test_the_fast_path_can_be_switched_off_and_on(monkeypatch: pytest.MonkeyPatch):
    assert "engine=native serves" in node_runner.explain(made(Net), start(), TS)
    monkeypatch.setenv("NODE_RUNNER_FAST", "0")
    assert "switched off" in why()
    node_runner.fast_path(True)
    assert "engine=native serves" in node_runner.explain(made(Net), start(), TS)
    node_runner.fast_path(False)
    assert "switched off" in why()
    theirs, ours = (answer(module, "odeint", Net, TS) for module in (torchdiffeq, node_runner))
    assert torch.equal(ours[0], theirs[0])
    assert all(torch.equal(mine, other) for mine, other in zip(ours[1], theirs[1], strict=True))


@needs_compiler
@pytest.mark.parametrize("name", ["odeint", "odeint_adjoint"])
def test_the_number_of_steps_is_bounded_in_each_interval_as_in_torchdiffeq(name: str):
    """Intervals of 4 and 6 steps, of which ours would be 10."""
    few = {"method": "dopri5", "options": {"first_step": 0.1, "max_step": 0.1, "max_num_steps": 7}}
    theirs, ours = (answer(module, name, Net, TS, **few) for module in (torchdiffeq, node_runner))
    assert torch.equal(ours[0], theirs[0])
    few["options"]["max_num_steps"] = 5
    for module in (torchdiffeq, node_runner):
        with pytest.raises(AssertionError, match=r"max_num_steps exceeded \(5>=5\)"):
            answer(module, name, Net, TS, **few)


@needs_compiler
@pytest.mark.parametrize("name", ["odeint", "odeint_adjoint"])
def test_a_solve_that_fails_ends_in_torchdiffeq_s_error(name: str):
    raised = []
    for module in (torchdiffeq, node_runner):
        field = made(Net)
        with torch.no_grad():
            field.net[2].bias.fill_(float("nan"))
        with pytest.raises(AssertionError) as caught:
            getattr(module, name)(field, start(), TS)
        raised.append(str(caught.value))
    assert raised[0] == raised[1]


def test_without_an_engine_every_call_is_torchdiffeq_s(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(decision, "_engines", lambda: ())
    theirs, ours = (answer(module, "odeint", Net, TS) for module in (torchdiffeq, node_runner))
    assert torch.equal(ours[0], theirs[0])


def test_the_defaults_are_torchdiffeq_s():
    for name in ("odeint", "odeint_adjoint"):
        theirs, ours = (inspect.signature(getattr(module, name)) for module in (torchdiffeq, node_runner))
        assert [p.default for p in ours.parameters.values()] == [p.default for p in theirs.parameters.values()]


@needs_compiler
def test_a_field_of_a_flag_is_served():
    # SmallField asks `if self.time_dependent`.
    field, y0 = SmallField(), torch.ones(2, 3, dtype=torch.float64)
    assert "engine=native serves" in node_runner.explain(field, y0, TS)
    assert node_runner.odeint(field, y0, TS).shape == (3, 2, 3)


@needs_compiler
def test_second_derivatives_are_torchdiffeq_s():
    answers = []
    for module in (torchdiffeq, node_runner):
        field, y0 = made(Net), start()
        ys = module.odeint(field, y0, TS, method="dopri5", options={"first_step": 0.1}, rtol=1e-4, atol=1e-5)
        (first,) = torch.autograd.grad(ys[-1].sum(), y0, create_graph=True)
        loss = ys.square().sum() + first.square().sum()
        answers.append([ys, first, *torch.autograd.grad(loss, [y0, *field.parameters()])])
    assert by_an_engine(answers[1][0])
    for theirs, ours in zip(*answers, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


@needs_compiler
def test_states_of_a_served_call_may_be_changed_in_place():
    gradients = []
    for module in (torchdiffeq, node_runner):
        y0 = states(3, 1, 2)
        ys = module.odeint(made(DemoField), y0, TS, method="rk4", options={"step_size": 0.1})
        ys += 1
        ys[1].mul_(3)
        gradients += torch.autograd.grad(ys.square().sum(), y0)
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)
