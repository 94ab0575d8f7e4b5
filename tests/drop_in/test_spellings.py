"""Fields as users write them, each served by an engine: values, gradients and evaluations are torchdiffeq's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchdiffeq
from torch import Tensor, nn

import node_runner
from node_runner.engines.compiler import compiler


pytestmark = pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler for engine=native")

TS = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
CALL: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5, "method": "dopri5", "options": {"first_step": 0.1}}


class Counting(nn.Module):
    """Counts its calls, as torchdiffeq's examples do."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.net = nn.Sequential(*layers)
        self.nfe = 0

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        self.nfe += 1
        return self.net(y)


class Latent(nn.Module):
    """The field of torchdiffeq's examples/latent_ode.py, smaller."""

    def __init__(self) -> None:
        super().__init__()
        self.elu = nn.ELU(inplace=True)
        self.fc1 = nn.Linear(2, 6)
        self.fc2 = nn.Linear(6, 6)
        self.fc3 = nn.Linear(6, 2)
        self.nfe = 0

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        self.nfe += 1
        out = self.fc1(x)
        out = self.elu(out)
        out = self.fc2(out)
        out = self.elu(out)
        return self.fc3(out)


class Written(nn.Module):
    """By functions, with an activation at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(2, 6, bias=False), nn.Linear(6, 2)
        self.nfe = 0

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        self.nfe += 1
        return torch.tanh(self.b(F.leaky_relu(self.a(y), 0.2)))


class Timed(Counting):
    """Told the time before the state."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(3, 6), nn.Sigmoid(), nn.Linear(6, 2))


class Expanded(Timed):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        self.nfe += 1
        return self.net(torch.cat([t.expand(y.size(0), 1), y], dim=-1))


class ByDimensions(Timed):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        self.nfe += 1
        if t.dim() == 0:
            t = t.repeat(y.shape[0], 1)
        return self.net(torch.cat((t, y), axis=1))


class Ones(Timed):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        self.nfe += 1
        return self.net(torch.cat([torch.ones(y.shape[0], 1).to(y) * t, y], 1))


class Filled(Timed):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        self.nfe += 1
        return self.net(torch.cat([torch.full_like(y[:, :1], t.item()), y], 1))


class Negative(Counting):
    def __init__(self) -> None:
        super().__init__(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 2))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        self.nfe += 1
        return -self.net(y)


class Decaying(Negative):
    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        self.nfe += 1
        return self.net(y) - y


class Scaled(Negative):
    scale = 0.1

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        self.nfe += 1
        out = torch.relu(self.net(y)) * self.scale
        return out.sub(y / 2)


def without_bias() -> nn.Module:
    layers = nn.Linear(2, 6, bias=False), nn.LeakyReLU(0.2, inplace=True), nn.Linear(6, 2), nn.Tanh()
    return Counting(*layers)


def nested() -> nn.Module:
    hidden = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Sequential(nn.Linear(6, 6), nn.ReLU(inplace=True)))
    return Counting(hidden, nn.Linear(6, 2, bias=False))


FIELDS: dict[str, Callable[[], nn.Module]] = {
    "latent_ode.py": Latent,
    "no bias, an activation at the end": without_bias,
    "the same by functions": Written,
    "time first": Expanded,
    "time by dimensions": ByDimensions,
    "time by ones": Ones,
    "nested, two activations": nested,
    "negative": Negative,
    "with decay": Decaying,
    "scaled, with decay, an activation at the end": Scaled,
    "one layer": lambda: Counting(nn.Linear(2, 2, bias=False)),
}


def start() -> Tensor:
    return torch.tensor([[0.5, -1.0], [1.5, 0.2], [-0.3, 0.9]], dtype=torch.float64, requires_grad=True)


def made(field: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(3)
    return field().double()


def assert_served(field: Callable[[], nn.Module], name: str) -> None:
    assert "engine=native" in node_runner.explain(made(field), start(), TS, adjoint=name == "odeint_adjoint", **CALL)
    answers = []
    for module in (torchdiffeq, node_runner):
        func, y0 = made(field), start()
        ys = getattr(module, name)(func, y0, TS, **CALL)
        counts = [func.nfe]
        weights = torch.linspace(-1, 2, ys.numel(), dtype=ys.dtype).view_as(ys)
        gradients = torch.autograd.grad((weights * ys.sin()).sum(), [y0, *func.parameters()])
        counts.append(func.nfe)
        answers.append((counts, [ys, *gradients]))
    (their_counts, theirs), (counts, ours) = answers
    assert counts == their_counts
    assert (counts[1] > counts[0] > 0) == (name == "odeint_adjoint")
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["odeint", "odeint_adjoint"])
@pytest.mark.parametrize("field", FIELDS)
def test_a_spelling_is_served_as_torchdiffeq_serves_it(field: str, name: str):
    assert_served(FIELDS[field], name)


def test_the_time_as_a_number_is_served_by_odeint_alone():
    assert_served(Filled, "odeint")
    assert "a mere number" in node_runner.explain(made(Filled), start(), TS, adjoint=True, **CALL)


def test_a_backward_solve_that_is_run_twice_is_counted_twice():
    counts = []
    for module in (torchdiffeq, node_runner):
        func = made(Latent)
        ys = module.odeint_adjoint(func, start(), TS, **CALL)
        for _ in range(2):
            ys.sum().backward(retain_graph=True)
        counts.append(func.nfe)
    assert counts[0] == counts[1]


def test_a_second_derivative_counts_no_calls():
    counts = []
    for module in (torchdiffeq, node_runner):
        func, y0 = made(Latent), start()
        ys = module.odeint(func, y0, TS, **CALL)
        torch.autograd.grad(ys.sum(), y0, create_graph=True)
        counts.append(func.nfe)
    assert counts[0] == counts[1]


def test_an_adjoint_with_cubics_is_left_to_torchdiffeq_where_calls_are_counted():
    call = {"method": "rk4", "options": {"step_size": 0.3, "interp": "cubic"}}
    assert "counts the calls" in node_runner.explain(made(Latent), start(), TS, adjoint=True, **call)
    assert "engine=native" in node_runner.explain(made(Latent), start(), TS, **call)


class Physical(Counting):
    """The field of torchdiffeq's examples/learn_physics.py: it holds its own first state."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 2))
        self.start = nn.Parameter(torch.tensor([10.0, 0.3]))


def test_a_parameter_that_the_field_does_not_use_is_served_by_odeint_alone():
    answers = []
    for module in (torchdiffeq, node_runner):
        torch.manual_seed(3)
        func = Physical().double()
        module.odeint(func, func.start, TS, **CALL).sin().sum().backward()
        answers.append([p.grad for p in func.parameters()])
    assert "engine=native" in node_runner.explain(func, func.start, TS, **CALL)
    for mine, other in zip(*answers, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-10)
    assert "beside its layers" in node_runner.explain(func, func.start, TS, adjoint=True, **CALL)


def test_a_second_derivative_of_a_first_state_that_depends_on_the_field_s_parameters():
    answers = []
    for module in (torchdiffeq, node_runner):
        func = made(Latent)
        weight = func.fc1.weight
        ys = module.odeint(func, func.fc3(func.fc1(start())), TS, **CALL)
        (first,) = torch.autograd.grad(ys.sin().sum(), weight, create_graph=True)
        answers.append([first, *torch.autograd.grad(first.square().sum(), weight)])
    for mine, other in zip(*answers, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-8)
