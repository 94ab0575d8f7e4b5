"""Which modules of users are taken for a chain of linear layers, and which are not."""

from __future__ import annotations

import gc
import importlib.util
import re
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from node_runner.fields.activation import ACTIVATIONS
from node_runner.forms import form_of
from node_runner.settings import Activation
from node_runner.tracing import Chain, chain_of
from tests.problems import CountingField, SmallField


class Net(nn.Module):
    """The field of torchdiffeq's ode_demo.py, smaller and without the cube."""

    def __init__(self, activation: nn.Module | None = None, inputs: int = 2) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(inputs, 8), activation or nn.Tanh(), nn.Linear(8, 2))
        self.nfe = 0
        self.timed = True
        self.scale = 2.0
        self.calls: list[float] = []

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.net(y)


class Written(nn.Module):
    """The same, written out, three layers deep."""

    def __init__(self, inputs: int = 2) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(inputs, 8), nn.Linear(8, 7), nn.Linear(7, 2)])
        self.act = torch.sin

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """Words in front do no harm."""
        h: Tensor = y
        for layer in self.layers[:-1]:
            h = self.act(layer(h))
        return self.layers[-1](h)


class Ones(Net):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.net(torch.cat([y, t * torch.ones_like(y[:, :1])], -1))


class Expanded(Net):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.net(torch.cat((y, t.to(y.dtype).reshape(-1, 1).expand(len(y), 1)), dim=1))


class Repeated(Net):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        column = t.view(1, 1).repeat(y.shape[0], 1)
        return self.net(torch.cat((y, column), dim=1))


class Flagged(Net):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        if self.timed:
            y = torch.cat((y, t.expand(y.size(0), 1)), dim=1)
        return self.net(y)


def found(module: nn.Module, leading: tuple[int, ...] = (5,)) -> Chain:
    chain = chain_of(module, leading)
    assert not isinstance(chain, str), chain
    return chain


def value(chain: Chain, t: Tensor, y: Tensor) -> Tensor:
    """What a chain says that its module computes."""
    h, column = y**chain.power, t.expand(*y.shape[:-1], 1)
    if chain.time_input:
        h = torch.cat((column, h) if chain.time_first else (h, column), dim=-1)
    for linear, kind in zip(chain.linears, chain.activations, strict=True):
        h = linear(h)
        if kind is Activation.leaky_relu:
            h = F.leaky_relu(h, chain.slope)
        elif kind is not None:
            h = ACTIVATIONS[kind](h)
    return h


MODULES = {
    Activation.tanh: nn.Tanh(), Activation.silu: nn.SiLU(), Activation.softplus: nn.Softplus(),
    Activation.gelu: nn.GELU(), Activation.elu: nn.ELU(), Activation.relu: nn.ReLU(),
    Activation.leaky_relu: nn.LeakyReLU(), Activation.sigmoid: nn.Sigmoid(),
}  # fmt: skip


@pytest.mark.parametrize("kind", MODULES, ids=lambda kind: kind.value)
def test_a_sequence_of_layers_is_recognised(kind: Activation):
    module = Net(MODULES[kind])
    chain = found(module)
    assert (chain.activations, chain.time_input) == ((kind, None), False)
    assert [id(linear) for linear in chain.linears] == [id(module.net[0]), id(module.net[2])]


def test_a_loop_over_layers_with_a_function_between_is_recognised():
    module = Written()
    chain = found(module)
    assert (chain.activations, chain.linears) == ((Activation.sin, Activation.sin, None), tuple(module.layers))
    t, y = torch.tensor(0.3), torch.randn(5, 2)
    assert torch.equal(value(chain, t, y), module(t, y))


@pytest.mark.parametrize(
    "module",
    [Ones(inputs=3), Expanded(inputs=3), Repeated(inputs=3), Flagged(inputs=3), SmallField()],
    ids=lambda module: type(module).__name__,
)
def test_the_time_beside_the_state_is_recognised(module: nn.Module):
    chain = found(module)
    assert chain.time_input
    dtype = chain.linears[0].weight.dtype
    t, y = torch.tensor(0.3, dtype=dtype), torch.randn(5, chain.linears[-1].out_features, dtype=dtype)
    assert torch.equal(value(chain, t, y), module(t, y))


class ByDimensions(Net):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        if t.dim() == 0:
            t = t.unsqueeze(0)
        if len(y.shape) > 1:
            t = t.repeat(y.size(0), 1)
        return self.net(torch.cat([t, y], -1))


class TimeFirst(Net):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.net(torch.cat((t.expand(len(y), 1), y), dim=1))


@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("kind", [TimeFirst, ByDimensions])
def test_the_time_before_the_state_is_recognised(kind: type[Net], dim: int):
    module = kind(inputs=1 + dim)
    module.net[2] = nn.Linear(8, dim)
    chain = found(module)
    assert (chain.time_input, chain.time_first) == (True, True)
    t, y = torch.tensor(0.3), torch.randn(5, dim)
    assert torch.equal(value(chain, t, y), module(t, y))


class Filled(Net):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.net(torch.cat((y, torch.full((len(y), 1), t.item())), dim=1))


LAYERS = {
    "no bias": (nn.Linear(2, 8, bias=False), nn.Tanh(), nn.Linear(8, 2)),
    "relu in place": (nn.Linear(2, 8), nn.ReLU(inplace=True), nn.Linear(8, 2)),
    "others in place": (
        nn.Linear(2, 8),
        nn.LeakyReLU(0.2, True),
        nn.Linear(8, 8),
        nn.ELU(inplace=True),
        nn.Linear(8, 2),
    ),
    "two activations": (nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)),
    "an activation at the end": (nn.Linear(2, 8), nn.SiLU(), nn.Linear(8, 2), nn.Tanh()),
    "no activation": (nn.Linear(2, 8), nn.Linear(8, 2)),
    "one layer": (nn.Linear(2, 2, bias=False),),
    "nested": (nn.Sequential(nn.Linear(2, 8), nn.Sigmoid()), nn.Identity(), nn.Sequential(nn.Linear(8, 2))),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_as_users_put_them_together_are_recognised(name: str):
    module = Two(*LAYERS[name])
    t, y = torch.tensor(0.3), torch.randn(5, 2)
    assert torch.equal(value(found(module), t, y), module(t, y))


class InPlace(nn.Module):
    """By methods and functions that change what a layer gave."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(2, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        h = self.a(y)
        _ = torch.tanh_(h)
        h = self.b(h).relu_()
        return F.leaky_relu(self.c(h), negative_slope=0.3, inplace=True)


def test_activations_in_place_are_what_the_next_layer_sees():
    module = InPlace()
    chain = found(module)
    assert chain.activations == (Activation.tanh, Activation.relu, Activation.leaky_relu)
    assert chain.slope == 0.3
    t, y = torch.tensor(0.3), torch.randn(5, 2)
    assert torch.equal(value(chain, t, y), module(t, y))


def test_a_counter_is_found_where_it_may_be_and_is_as_before():
    module = Counts()
    module.nfe = 7
    chain = chain_of(module, counting=True)
    assert not isinstance(chain, str)
    assert chain.counts == ((0, "nfe", 1),)
    assert module.nfe == 7


def test_what_is_found_in_inference_mode_holds_elsewhere():
    module = TimeFirst(inputs=3)
    with torch.inference_mode():
        chain = found(module)
    assert found(module) == chain
    assert not chain.time_cut


class Cubed(Net):
    power = 3

    @classmethod
    def of(cls, *layers: nn.Module) -> Cubed:
        """With layers of one's own."""
        module = cls()
        module.net = nn.Sequential(*layers)
        return module

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.net(y**self.power)


class Squared(Net):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.net(torch.square(y))


class Called(Net):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.net(torch.pow(y, exponent=2.0).pow(2))


class Multiplied(Net):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        square = y * y
        return self.net(torch.mul(square, square.mul(y)))


class CubedAndTime(Net):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.net(torch.cat((y**3, t * torch.ones_like(y[..., :1])), -1))


@pytest.mark.parametrize(
    ("module", "power"),
    [(Net(), 1), (Squared(), 2), (Cubed(), 3), (CubedAndTime(inputs=3), 3), (Called(), 4), (Multiplied(), 5)],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
@pytest.mark.parametrize("leading", [(), (5,), (4, 1), (2, 3, 2)], ids=str)
def test_a_power_of_the_state_is_recognised_whatever_the_state_s_shape(
    module: nn.Module, power: int, leading: tuple[int, ...]
):
    chain = found(module, leading)
    t, y = torch.tensor(0.3), torch.randn(*leading, 2)
    assert chain.power == power
    torch.testing.assert_close(value(chain, t, y), module(t, y))


class ByRank(Net):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.net(y**y.ndim)


class ByCount(Net):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.net(y ** len(y))


class Mistaken(Net):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.net(torch.cat((y, y), -1))


def test_what_a_forward_raises_is_named_with_its_place():
    line = Mistaken.forward.__code__.co_firstlineno + 1
    why = chain_of(Mistaken())
    assert isinstance(why, str) and why.startswith(
        "it does not run on states (B, D), with the time as a number: Runtime"
    )
    assert "cannot be multiplied" in why and why.endswith(f"(test_chains.py:{line})")


class ForThree(Net):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.net(torch.cat((y, t.expand(len(y), 1, 1)), dim=2))


def test_what_is_found_holds_for_the_shape_that_is_asked_about():
    assert [found(ByRank(), leading).power for leading in ((), (5,), (5, 1), (4, 2, 3))] == [1, 2, 3, 4]
    assert isinstance(chain_of(ByCount(), (5,)), str)
    timed = Expanded(inputs=3)
    assert found(timed).time_input
    for leading, shape in (((), "D"), ((5, 1), "B, 1, D")):
        why = chain_of(timed, leading)
        assert isinstance(why, str) and why.startswith(
            f"it does not run on states ({shape}), with the time as a number"
        )
    assert found(timed).time_input  # what was found before stands
    three = ForThree(inputs=3)
    assert found(three, (5, 1)).time_input
    assert isinstance(chain_of(three, (5, 2)), str)
    assert isinstance(chain_of(three), str)


def test_an_exponent_that_changes_is_heard_of():
    module = Cubed()
    assert found(module).power == 3
    module.power = 2
    assert found(module).power == 2
    module.power = 2.5
    assert isinstance(chain_of(module), str)


class Raised(Net):
    def __init__(self, power: float) -> None:
        super().__init__()
        self.power = power

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.net(y**self.power)


class Base(Net):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.net(2**y)


class Doubled(Net):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.net(y * 2)


class TimesTime(Net):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.net(y * t)


class SquaredBetween(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(2, 8), nn.Linear(8, 2)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.b(self.a(y) ** 2)


class Scaled(Net):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.scale * self.net(y)


class Residual(Net):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.net(y) - y


class Mixed(Net):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        out = torch.tanh(self.net(y)) / 4
        return 3 * (-y - out * self.scale) + y


class TwiceAdded(Net):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        h = self.net(y)
        return h + h


class Raising(Net):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.net(y) + 1.0


class CubeAdded(Net):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.net(y) + y**3


class TimesBatch(Net):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return len(y) * self.net(y)


class TimesHalfTheBatch(Net):
    """The same number for the batches on which it is tried."""

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return (1 + len(y) // 4) * self.net(y)


def scaled(scale: Any) -> nn.Module:
    module = Scaled()
    module.scale = scale
    return module


@pytest.mark.parametrize(
    ("module", "parts"),
    [
        (Scaled(), (2.0, 0.0)),
        (scaled(-1), (-1.0, 0.0)),
        (Residual(), (1.0, -1.0)),
        (Mixed(), (-1.5, -2.0)),
    ],
    ids=["scaled", "negative", "residual", "mixed"],
)
def test_a_multiple_with_a_multiple_of_the_state_beside_it_is_recognised(module: nn.Module, parts: tuple[float, float]):
    chain = found(module)
    assert (chain.scale, chain.along) == parts
    t, y = torch.tensor(0.3), torch.randn(5, 2)
    torch.testing.assert_close(chain.value(t, y), module(t, y))


ACT = torch.tanh


class ByName(nn.Module):
    """With an activation by a global name."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(2, 8), nn.Linear(8, 2)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.b(ACT(self.a(y)))


def test_a_global_name_that_changes_is_seen(monkeypatch: pytest.MonkeyPatch):
    module = ByName()
    assert found(module).activations[0] is Activation.tanh
    monkeypatch.setitem(globals(), "ACT", torch.relu)
    assert found(module).activations[0] is Activation.relu


def test_a_forward_that_is_replaced_is_seen(monkeypatch: pytest.MonkeyPatch):
    module = Net()
    assert found(module).scale == 1.0
    monkeypatch.setattr(Net, "forward", Residual.forward)
    assert found(module).along == -1.0


def test_a_scale_that_changes_is_seen():
    module = scaled(2.0)
    assert found(module).scale == 2.0
    module.scale = -0.5
    assert found(module).scale == -0.5


class SquaredTime(Net):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.net(torch.cat((y, t * t * torch.ones_like(y[:, :1])), dim=1))


class TimeTwice(Net):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        column = t.expand(len(y), 1)
        return self.net(torch.cat((column, y, column), dim=1))


class NoState(Net):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        column = t.expand(len(y), 1)
        return self.net(torch.cat((column, column), dim=1))


class SeenElsewhere(Net):
    """The result is a view of what changes afterwards."""

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        h = self.net(y)
        seen = h.view(len(y), 2).view(len(y), 2)
        _ = h.relu_()
        return seen


class CountsAndReads(Net):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        self.nfe += 1
        return self.net(y**self.nfe)


class CountsInAProperty(Net):
    """Somebody else hears of it."""

    @property
    def nfe(self) -> int:
        return 0

    @nfe.setter
    def nfe(self, value: int) -> None:
        CALLS[0] = value

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        self.nfe += 1
        return self.net(y)


class ByBatch(Net):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        if len(y) > 100:
            return -self.net(y)
        return self.net(y)


class Counts(Net):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        self.nfe += 1
        return self.net(y)


class Notes(Net):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        self.calls.append(float(t))
        return self.net(y)


class NotesInPassing(Net):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        _ = self.calls.append(1.0)
        return self.net(y)


class Sets(Net):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        setattr(self, "nfe", self.nfe + 1)  # noqa: B010
        return self.net(y)


class Prints(Net):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        print(t)
        return self.net(y)


CALLS = [0]


class CountsOutside(Net):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        CALLS[0] += 1
        return self.net(y)


class CountsGlobally(Net):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        global CALLS
        CALLS = [*CALLS, 1]
        return self.net(y)


def helper(y: Tensor) -> Tensor:
    CALLS.append(1)
    return y


class Helped(Net):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.net(helper(y))


class HelpedByDefault(Net):
    def forward(self, t: Tensor, y: Tensor, help: Callable[[Tensor], Tensor] = helper) -> Tensor:
        return self.net(help(y))


class HelpedByKeyword(Net):
    def forward(self, t: Tensor, y: Tensor, *, help: Callable[[Tensor], Tensor] = lambda y: helper(y)) -> Tensor:
        return self.net(help(y))


class OwnMethod(Net):
    def inner(self, y: Tensor) -> Tensor:
        self.nfe += 1
        return self.net(y)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.inner(y)


class ByTime(Net):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        if t > 10:
            return -self.net(y)
        return self.net(y)


class ByTimeInLine(Net):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return -self.net(y) if t > 10 else self.net(y)


class WithoutGradient(Net):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            return self.net(y)


class ChangesTheState(Net):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        y += 1
        return self.net(y)


class Twice(Net):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(2, 2)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.one(torch.tanh(self.one(y)))


class Two(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.net = nn.Sequential(*layers)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.net(y)


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(2, 8), nn.Linear(8, 2)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.b(F.elu(self.a(y), alpha=0.5))


def normed() -> nn.Module:
    module = Net()
    module.net[0] = torch.nn.utils.parametrizations.weight_norm(module.net[0])
    return module


def tied() -> nn.Module:
    module = Two(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2))
    module.net[2].weight = module.net[0].weight
    return module


def tied_biases() -> nn.Module:
    module = Two(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2))
    module.net[2].bias = module.net[0].bias
    return module


def spare() -> nn.Module:
    module = Net()
    module.start = nn.Parameter(torch.zeros(2))
    return module


def hooked() -> nn.Module:
    module = Net()
    module.net[1].register_forward_hook(lambda *arguments: None)
    return module


def replaced() -> nn.Module:
    module = Net()
    module.forward = lambda t, y: -y  # type: ignore[method-assign]
    return module


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "a root": (lambda: Raised(0.5), "pow"),
    "a negative power": (lambda: Raised(-1), "pow"),
    "the power 0": (lambda: Raised(0), "pow"),
    "a power of 6": (lambda: Raised(6), r"y\*\*6, and the highest power known here is 5"),
    "a power of 2": (Base, "pow"),
    "a power between layers": (SquaredBetween, "pow"),
    "doubled": (Doubled, "mul"),
    "times the time": (TimesTime, "mul"),
    "times 0": (lambda: scaled(0.0), "multiplies its result by 0"),
    "times infinity": (lambda: scaled(float("inf")), "multiplies its result by inf"),
    "times a tensor": (lambda: scaled(torch.tensor(0.5)), r"self\.scale"),
    "twice its layers": (TwiceAdded, "adds what is no multiple"),
    "a number added": (Raising, "^its result is that of add"),
    "a cube added": (CubeAdded, "adds what is no multiple|pow"),
    "times the batch": (TimesBatch, "does not run on states"),
    "times half the batch": (TimesHalfTheBatch, "may do more than compute"),
    "squared time": (lambda: SquaredTime(inputs=3), "not the time"),
    "time twice": (lambda: TimeTwice(inputs=4), "with or without the time beside it"),
    "no state": (lambda: NoState(inputs=2), "with or without the time beside it"),
    "counts": (Counts, r"self\.nfe \+= 1"),
    "notes": (Notes, r"self\.calls\.append"),
    "notes in passing": (NotesInPassing, r"self\.calls"),
    "sets": (Sets, "setattr"),
    "prints": (Prints, "print"),
    "counts outside": (CountsOutside, r"CALLS\[0\] \+= 1"),
    "counts globally": (CountsGlobally, "global CALLS"),
    "helped": (Helped, "helper"),
    "helped by default": (HelpedByDefault, "default"),
    "helped by keyword": (HelpedByKeyword, "default"),
    "own method": (OwnMethod, r"self\.inner"),
    "by time": (ByTime, "chooses"),
    "by time in line": (ByTimeInLine, "may do more"),
    "without gradient": (WithoutGradient, "no_grad"),
    "in place": (ChangesTheState, r"y \+= 1"),
    "twice": (Twice, "twice"),
    "dropout": (lambda: Two(nn.Linear(2, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 2)), "Dropout"),
    "batch norm": (lambda: Two(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 2)), "BatchNorm1d"),
    "two activations in a row": (lambda: Two(nn.Linear(2, 8), nn.ReLU(), nn.Tanh(), nn.Linear(8, 2)), "it has relu"),
    "two slopes": (
        lambda: Two(nn.Linear(2, 8), nn.LeakyReLU(), nn.Linear(8, 2), nn.LeakyReLU(0.2)), "several slopes"
    ),
    "no layer": (lambda: Two(nn.Tanh()), "no linear layers"),
    "a sharper softplus": (lambda: Two(nn.Linear(2, 8), nn.Softplus(beta=2.0), nn.Linear(8, 2)), "settings of its own"),
    "gelu by tanh": (lambda: Two(nn.Linear(2, 8), nn.GELU("tanh"), nn.Linear(8, 2)), "settings of its own"),
    "a flatter elu": (Functional, "settings of its own"),
    "a power in place": (
        lambda: Cubed.of(nn.ReLU(inplace=True), nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2)), "it has pow"
    ),
    "what is seen elsewhere in place": (SeenElsewhere, "^its result is that of something"),
    "counts and reads": (CountsAndReads, r"counts in `self\.nfe` and reads it"),
    "counts in a property": (CountsInAProperty, r"self\.nfe \+= 1"),
    "by the size of the batch": (ByBatch, "chooses"),
    "the state in place": (
        lambda: Two(nn.ReLU(inplace=True), nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2)), "changes the state .* in place"
    ),
    "weight norm": (normed, "Parametri|layers"),
    "tied": (tied, "twice"),
    "tied biases": (tied_biases, "shared"),
    "a spare parameter": (spare, "beside its layers"),
    "hooked": (hooked, "hooks"),
    "replaced": (replaced, "replaced"),
    "a counter around": (lambda: CountingField(SmallField()), r"self\.calls \+= 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_such_a_chain_is_refused_with_the_reason(name: str):
    make, reason = REFUSED[name]
    module = make()
    answer = chain_of(module)
    assert isinstance(answer, str)
    assert re.search(reason, answer), answer
    assert form_of(module) is None


@pytest.mark.parametrize("make", [spare, lambda: Filled(inputs=3)], ids=["a spare parameter", "the time as a number"])
def test_what_an_adjoint_would_count_is_found_where_there_is_none(make: Callable[[], nn.Module]):
    assert not isinstance(chain_of(make(), discrete=True), str)
    assert isinstance(chain_of(make()), str)


def test_looking_at_a_module_leaves_no_trace_in_it():
    for make in (Net, Counts, Notes, Prints):
        module = make()
        before = {key: list(v) if isinstance(v, list) else v for key, v in vars(module).items()}
        chain_of(module)
        assert {key: list(v) if isinstance(v, list) else v for key, v in vars(module).items()} == before
        assert all(p.grad is None for p in module.parameters())


def test_a_module_that_changes_is_looked_at_again():
    module = Net()
    found(module)
    handle = module.register_forward_hook(lambda *arguments: None)
    assert isinstance(chain_of(module), str)
    handle.remove()
    found(module)
    module.net[1] = nn.SiLU()
    assert found(module).activations == (Activation.silu, None)
    module.net[0].bias = None
    assert [layer.bias is None for layer in form_of(module).layers] == [True, False]
    module.net[0] = nn.Linear(2, 8)
    assert found(module).linears[0] is module.net[0]
    module.register_parameter("spare", nn.Parameter(torch.ones(1)))
    assert isinstance(chain_of(module), str)


def test_a_setting_of_an_activation_that_changes_is_heard_of():
    module = Net(nn.LeakyReLU(0.2))
    assert found(module).slope == 0.2
    module.net[1].negative_slope = 0.3
    assert found(module).slope == 0.3
    module = Net(nn.Softplus())
    found(module)
    module.net[1].beta = 2.0
    assert isinstance(chain_of(module), str)


def test_a_flag_that_changes_is_heard_of():
    module = Flagged(inputs=3)
    assert found(module).time_input
    module.timed = False
    assert isinstance(chain_of(module), str)  # three inputs, two outputs


def test_a_file_that_has_changed_since_it_was_imported_is_not_believed(tmp_path: Path):
    file = tmp_path / "changing.py"
    source = (
        "import torch\nfrom torch import nn\n\n\nclass Field(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.net = nn.Linear(2, 2)\n\n"
        "    def forward(self, t, y):\n        {}\n        return self.net(y)\n"
    )
    file.write_text(source.format("print(t)"))
    spec = importlib.util.spec_from_file_location("changing", file)
    assert spec is not None and spec.loader is not None
    changing = importlib.util.module_from_spec(spec)
    sys.modules["changing"] = changing
    spec.loader.exec_module(changing)
    file.write_text(source.format("# quiet now"))
    assert "not what runs" in chain_of(changing.Field())
    del sys.modules["changing"]


def test_the_parameters_are_read_anew_each_time():
    module = Net()
    form = form_of(module)
    module.net[0].weight = nn.Parameter(torch.zeros(8, 2))
    again = form_of(module)
    assert form is not None and again is not None
    assert again.parameters[0] is module.net[0].weight is not form.parameters[0]


def test_a_module_that_was_looked_at_can_go():
    module = Flagged(inputs=3)
    found(module)
    alive = weakref.ref(module)
    del module
    gc.collect()
    assert alive() is None


def test_a_method_named_form_that_is_something_else_is_not_believed():
    class Shaped(Net):
        def form(self) -> str:
            return "round"

    assert form_of(Shaped()) is None
