"""Adam around torch's fused kernel: torch's own numbers, to the bit."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from node_runner.training.fused import FusedAdam


KINDS: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "adam": (torch.optim.Adam, {}),
    "adam-with-decay": (torch.optim.Adam, {"weight_decay": 0.1}),
    "adamw": (torch.optim.AdamW, {"weight_decay": 0.1}),
}


def parameters(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    draws = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=draws, dtype=dtype)) for shape in ((5, 3), (7,), ())]


def give_gradients(weights: list[nn.Parameter], step: int, without: tuple[int, ...] = ()) -> None:
    draws = torch.Generator().manual_seed(step)
    for i, weight in enumerate(weights):
        gradient = torch.randn(weight.shape, generator=draws, dtype=weight.dtype)
        weight.grad = None if i in without else gradient


def pair(kind: str, dtype: torch.dtype) -> tuple[FusedAdam, torch.optim.Optimizer, list[nn.Parameter], Any]:
    theirs, settings = KINDS[kind]
    usual: dict[str, Any] = {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-6, **settings}
    mine, others = parameters(dtype), parameters(dtype)
    return FusedAdam(mine, decoupled=kind == "adamw", **usual), theirs(others, fused=True, **usual), mine, others


def assert_same(mine: list[nn.Parameter], others: list[nn.Parameter]) -> None:
    assert all(torch.equal(a, b) for a, b in zip(mine, others, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_weights_are_those_of_torch_to_the_bit(kind: str, dtype: torch.dtype):
    fused, reference, mine, others = pair(kind, dtype)
    for step in range(8):
        for optimizer, weights in ((fused, mine), (reference, others)):
            optimizer.param_groups[0]["lr"] = 0.01 / (step + 1)
            give_gradients(weights, step)
            optimizer.step()
        assert_same(mine, others)
    assert float(fused.state[mine[0]]["step"]) == 8


@pytest.mark.parametrize("late", [0, 3], ids=["from-the-start", "later"])
def test_a_parameter_without_a_gradient_waits(late: int):
    fused, reference, mine, others = pair("adam", torch.float32)
    for step in range(8):
        for optimizer, weights in ((fused, mine), (reference, others)):
            give_gradients(weights, step, without=(1,) if late <= step < late + 3 else ())
            optimizer.step()
        assert_same(mine, others)


def test_a_state_that_was_loaded_is_gone_on_from():
    fused, _, mine, _ = pair("adam", torch.float32)
    for step in range(3):
        give_gradients(mine, step)
        fused.step()
    saved, weights = copy.deepcopy(fused.state_dict()), copy.deepcopy(mine)
    other = FusedAdam(weights, lr=9.0, betas=(0.1, 0.1), eps=1.0)
    give_gradients(weights, 100)  # another step lies behind it when the state arrives
    before = [weight.detach().clone() for weight in weights]
    other.step()
    with torch.no_grad():
        for weight, value in zip(weights, before, strict=True):
            weight.copy_(value)
    other.load_state_dict(saved)
    for step in range(3, 6):
        for optimizer, each in ((fused, mine), (other, weights)):
            give_gradients(each, step)
            optimizer.step()
        assert_same(mine, weights)


def test_the_closure_is_called_once_and_differentiates():
    weights = parameters()
    optimizer = FusedAdam(weights, lr=0.1, betas=(0.9, 0.99), eps=1e-8)
    calls = []

    def closure() -> torch.Tensor:
        for weight in weights:
            weight.grad = None
        loss = sum(weight.square().sum() for weight in weights)
        loss.backward()
        calls.append(loss.detach())
        return loss.detach()

    returned = [optimizer.step(closure) for _ in range(5)]
    assert returned == calls
    assert calls == sorted(calls, reverse=True)
