"""Functions and methods as fields, served by engine=native: as torchdiffeq to rounding, and seen when they change."""

from __future__ import annotations

import gc
import re
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchdiffeq
from torch import Tensor, nn

import node_runner
from node_runner.engines.compiler import compiler
from node_runner.engines.native.plan import library
from node_runner.tracing import as_module, chain_of


needs_compiler = pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler for engine=native")

TS = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
CALL: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5, "method": "dopri5", "options": {"first_step": 0.1}}
RATE = 0.3


def network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 2)).double()


NET = network()


def of_a_global(t: Tensor, y: Tensor) -> Tensor:
    """Words in front do no harm."""
    out = NET(y)
    return -out


class Field(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.rate = 1.0

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.net(y)


class Model(nn.Module):
    """Solves with its own field, as models do; its forward is no field, and it has other parts."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.encoder = nn.Conv1d(1, 1, 1)
        self.rate = 0.7

    def dynamics(self, t: Tensor, y: Tensor) -> Tensor:
        return self.net(y) * self.rate - 0.5 * y

    def field(self) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda t, y: self.net(y)

    def forward(self, y: Tensor) -> Tensor:
        print("not to be called")
        return torchdiffeq.odeint(self.dynamics, y, TS)


class Plain:
    """No module."""

    rate = -2.0

    def __init__(self, net: nn.Module) -> None:
        self.net = net

    def dynamics(self, t: Tensor, y: Tensor) -> Tensor:
        return self.rate * self.net(y)

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        return self.net(y) / 4 + y


def timed(t: Tensor, y: Tensor) -> Tensor:
    return TIMED(torch.cat([t * torch.ones_like(y[:, :1]), y], 1))


torch.manual_seed(3)
TIMED = nn.Sequential(nn.Linear(3, 6), nn.SiLU(), nn.Linear(6, 2)).double()


def nested(net: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    field = Field(net)

    def func(t: Tensor, y: Tensor) -> Tensor:
        return -field(t, y) - y

    return func


def by_layers(net: nn.Sequential) -> Callable[[Tensor, Tensor], Tensor]:
    first, last = net[0], net[2]
    return lambda t, y: last(F.relu(first(y)))


SERVED: dict[str, Callable[[nn.Sequential], Any]] = {
    "lambda": lambda net: lambda t, y: net(y),
    "negative": lambda net: lambda t, y: -net(y),
    "a number of the closure": lambda net: (lambda rate: lambda t, y: rate * net(y))(0.2),
    "a number of the file": lambda net: lambda t, y: net(y) * RATE,
    "nested, decay": nested,
    "layers": by_layers,
    "of a global": lambda net: of_a_global,
    "with time": lambda net: timed,
    "bound forward": lambda net: Field(net).forward,
    "method of a module": lambda net: Model(net).dynamics,
    "lambda of a module": lambda net: Model(net).field(),
    "method of an object": lambda net: Plain(net).dynamics,
    "an object": Plain,
    "the second of a line": lambda net: (lambda t, y: y, lambda t, y: 2 * net(y))[1],
}


def start() -> Tensor:
    return torch.tensor([[0.5, -1.0], [1.5, 0.2], [-0.3, 0.9]], dtype=torch.float64, requires_grad=True)


def answer(module: Any, name: str, func: Any, parameters: list[nn.Parameter]) -> list[Tensor]:
    """States and gradients."""
    y0 = start()
    more = {"adjoint_params": iter(parameters)} if name == "odeint_adjoint" else {}
    ys = getattr(module, name)(func, y0, TS, **CALL, **more)
    weights = torch.linspace(-1, 2, ys.numel(), dtype=ys.dtype).view_as(ys)
    return [ys, *torch.autograd.grad((weights * ys.sin()).sum(), [y0, *parameters])]


def check(func: Any, parameters: list[nn.Parameter], *names: str) -> Tensor:
    """Whether a function is served by native as by torchdiffeq: its states."""
    for name in names or ("odeint", "odeint_adjoint"):
        more = {"adjoint_params": parameters} if name == "odeint_adjoint" else {}
        assert node_runner.explain(func, start(), TS, **CALL, **more) == "engine=native serves this call"
        theirs, ours = (answer(module, name, func, parameters) for module in (torchdiffeq, node_runner))
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-10)
    return ours[0].detach()


@needs_compiler
@pytest.mark.parametrize("kind", SERVED)
def test_a_function_is_served_with_the_gradient_of_what_it_closes_over(kind: str):
    net = {"of a global": NET, "with time": TIMED}.get(kind, network())
    check(SERVED[kind](net), list(net.parameters()))


@needs_compiler
def test_a_number_that_changes_with_every_call_is_compiled_once():
    def field(rate: float) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda t, y: rate * net(y) - 0.1 * y

    net, built = network(), []
    for rate in (0.2, -0.7, 0.9):
        check(field(rate), list(net.parameters()), "odeint")
        built.append(library.cache_info().misses)
    assert built[0] == built[1] == built[2]


@needs_compiler
def test_second_derivatives_are_torchdiffeq_s():
    net, answers = network(), []
    for module in (torchdiffeq, node_runner):
        y0 = start()
        ys = module.odeint(lambda t, y: -net(y), y0, TS, **CALL)
        (first,) = torch.autograd.grad(ys.sum(), y0, create_graph=True)
        answers.append([ys, first, *torch.autograd.grad(first.square().sum(), [y0, net[0].weight])])
    for mine, other in zip(*answers, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-8)


@needs_compiler
def test_an_adjoint_is_told_the_parameters_or_left_to_torchdiffeq():
    net, y0 = network(), start()
    func = SERVED["lambda"](net)
    assert "no nn.Module" in node_runner.explain(func, y0, TS, adjoint=True)
    for params in ((), tuple(net[0].parameters())):
        assert "adjoint_params are not" in node_runner.explain(func, y0, TS, adjoint_params=params)
    with pytest.raises(ValueError, match="adjoint_params"):
        node_runner.odeint_adjoint(func, y0, TS)


# --- what is seen although the function looks the same --------------------------------------------------


@needs_compiler
def test_what_changes_between_calls_is_seen():
    net, rate, act = network(), 1.0, torch.tanh
    model = Model(net)

    def func(t: Tensor, y: Tensor) -> Tensor:
        return rate * net[2](act(net[0](y)))

    def parameters() -> list[nn.Parameter]:
        return [*net[0].parameters(), *net[2].parameters()]

    seen = [check(func, parameters(), "odeint")]
    rate = -0.5
    seen.append(check(func, parameters(), "odeint"))
    act = torch.relu
    seen.append(check(func, parameters(), "odeint"))
    torch.manual_seed(8)
    net = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    seen.append(check(func, parameters(), "odeint"))
    net[2] = nn.Linear(6, 2, bias=False).double()
    seen.append(check(func, parameters(), "odeint"))
    with torch.no_grad():
        net[2].weight.mul_(-1)
    seen.append(check(func, parameters(), "odeint"))
    seen.append(check(model.dynamics, list(model.net.parameters()), "odeint"))
    model.rate = 3.0
    seen.append(check(model.dynamics, list(model.net.parameters()), "odeint"))
    model.net = net
    seen.append(check(model.dynamics, list(net.parameters()), "odeint"))
    ends = [round(float(ys[-1].sum()), 9) for ys in seen]
    assert len(set(ends)) == len(ends)


def test_an_attribute_of_a_class_and_a_method_that_change_are_seen(monkeypatch: pytest.MonkeyPatch):
    field = Plain(network())
    scales = []
    for change in (None, ("rate", 0.4), ("dynamics", lambda self, t, y: self.net(y) * 7)):
        if change is not None:
            monkeypatch.setattr(Plain, *change)
        chain = chain_of(as_module(field.dynamics))
        assert not isinstance(chain, str), chain
        scales.append(chain.scale)
    assert scales == [-2.0, 0.4, 7.0]


@needs_compiler
def test_what_becomes_impure_is_not_served_any_more():
    net = network()
    func = SERVED["lambda"](net)
    check(func, list(net.parameters()), "odeint")
    handle = net[1].register_forward_hook(lambda *arguments: None)
    assert "hooks" in node_runner.explain(func, start(), TS)
    handle.remove()
    net[1] = nn.Dropout()
    assert "Dropout" in node_runner.explain(func, start(), TS)


NOTES: list[float] = []
SHIFT = torch.zeros(2, dtype=torch.float64)


def noting(t: Tensor, y: Tensor) -> Tensor:
    NOTES.append(1.0)
    return NET(y)


def counting(t: Tensor, y: Tensor) -> Tensor:
    global CALLS
    CALLS += 1
    return NET(y)


CALLS = 0


def shifted(t: Tensor, y: Tensor) -> Tensor:
    return NET(y) + SHIFT


def branching(t: Tensor, y: Tensor) -> Tensor:
    if t > 0.5:
        return -NET(y)
    return NET(y)


def noisy(t: Tensor, y: Tensor) -> Tensor:
    return NET(y) + torch.randn_like(y)


def with_default(t: Tensor, y: Tensor, rate: float = 2.0) -> Tensor:
    return rate * NET(y)


def helped(t: Tensor, y: Tensor) -> Tensor:
    return of_a_global(t, y)


@torch.no_grad()
def cut(t: Tensor, y: Tensor) -> Tensor:
    return NET(y)


class Counting(Field):
    def dynamics(self, t: Tensor, y: Tensor) -> Tensor:
        self.calls += 1
        return self.net(y)

    def around(self, t: Tensor, y: Tensor) -> Tensor:
        return self(t, self.net(y))

    calls = 0


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "notes": (lambda: noting, r"NOTES\.append"),
    "counts": (lambda: counting, "global CALLS"),
    "counts in a method": (lambda: Counting(NET).dynamics, r"self\.calls"),
    "calls itself": (lambda: Counting(NET).around, r"self\(t, self"),
    "a tensor": (lambda: shifted, "`SHIFT`, which may change"),
    "branches": (lambda: branching, "chooses"),
    "branches in line": (lambda: lambda t, y: NET(y) if t > 0.5 else -NET(y), "may do more"),
    "draws": (lambda: noisy, "randn_like"),
    "defaults": (lambda: with_default, "defaults"),
    "helped": (lambda: helped, "no module"),
    "decorated": (lambda: cut, "no module"),
    "a list": (lambda: (lambda nets: lambda t, y: nets[0](y))([NET]), "no module"),
    "made of text": (lambda: eval("lambda t, y: NET(y)", {"NET": NET}), "source"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_does_more_or_may_change_unseen_is_refused(kind: str):
    make, why = REFUSED[kind]
    reason = node_runner.explain(make(), start(), TS)
    assert reason.startswith("torchdiffeq serves this call")
    assert re.search(why, reason), reason
    assert (NOTES, CALLS) == ([], 0)


def test_a_network_is_let_go_of_although_functions_of_it_were_looked_at():
    net = network()
    gone = weakref.ref(net)
    func = SERVED["lambda"](net)
    assert not isinstance(chain_of(as_module(func)), str)
    layer = nn.Linear(2, 2)
    gone_too = weakref.ref(layer)
    assert not isinstance(chain_of(as_module(SERVED["lambda"](layer))), str)  # type: ignore[arg-type]
    del net, func, layer
    gc.collect()
    assert gone() is None
    assert gone_too() is None
