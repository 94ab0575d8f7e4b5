"""The functions in torchdiffeq's place, so that a library that calls torchdiffeq calls them."""

from __future__ import annotations

import importlib
import sys

import pytest
import torch
import torchdiffeq
from torch import Tensor

import node_runner
from tests.problems import SmallField


TS = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)


@pytest.fixture
def replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("odeint", "odeint_adjoint", "odeint_event"):
        monkeypatch.setattr(torchdiffeq, name, getattr(node_runner, name))


@pytest.mark.usefixtures("replaced")
def test_what_no_engine_serves_still_reaches_torchdiffeq():
    y0 = torch.ones(2, dtype=torch.float64)
    expected = torch.exp(-TS)[:, None].expand(3, 2)
    torch.testing.assert_close(torchdiffeq.odeint(lambda t, y: -y, y0, TS), expected)
    torch.testing.assert_close(torchdiffeq.odeint(lambda t, y: -y, y0, TS, method="tsit5"), expected)
    torch.testing.assert_close(torchdiffeq.odeint_adjoint(lambda t, y: -y, y0, TS, adjoint_params=()), expected)


@pytest.mark.usefixtures("replaced")
def test_an_event_still_reaches_torchdiffeq():
    def half(t: Tensor, y: Tensor) -> Tensor:
        return y - 0.5

    y0 = torch.ones(1, dtype=torch.float64)
    time, _ = torchdiffeq.odeint_event(lambda t, y: -y, y0, TS[0], event_fn=half, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(time, torch.tensor(2.0, dtype=torch.float64).log())


@pytest.mark.usefixtures("replaced")
def test_second_derivatives_still_reach_torchdiffeq():
    field = SmallField()
    y0 = torch.full((2, 3), 0.3, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(torchdiffeq.odeint(field, y0, TS).sum(), y0, create_graph=True)
    slope.square().sum().backward()
    assert y0.grad is not None
    assert y0.grad.isfinite().all()


def test_a_module_that_stands_for_torchdiffeq_is_refused_in_words(monkeypatch: pytest.MonkeyPatch):
    original = "node_runner.engines.extended.original"
    importlib.import_module(original)
    monkeypatch.delitem(sys.modules, original)
    monkeypatch.setitem(sys.modules, "torchdiffeq", node_runner)
    with pytest.raises(ImportError, match=r"is node_runner, and node_runner needs torchdiffeq itself: .*odeint = node"):
        importlib.import_module(original)
