"""Optimisers and schedules: their settings arrive, and their factors are those of the formula."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from node_runner.training import OPTIMIZERS, SCHEDULES


def parameters() -> list[nn.Parameter]:
    return [nn.Parameter(torch.tensor([5.0, -3.0], dtype=torch.float64))]


@pytest.mark.parametrize("name", OPTIMIZERS.names())
def test_every_optimiser_lowers_a_parabola(name: str):
    weights = parameters()
    optimizer = OPTIMIZERS.get(name)(weights, lr=1.0 if name == "lbfgs" else 0.05)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = weights[0].square().sum()
        loss.backward()
        return loss

    before = float(closure().detach())
    for _ in range(60):
        optimizer.step(closure)
    assert float(closure().detach()) < before / 4


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("adam", {"lr": 0.1, "beta1": 0.5, "beta2": 0.6, "eps": 0.1}, {"lr": 0.1, "betas": (0.5, 0.6), "eps": 0.1}),
        ("adamw", {"weight_decay": 0.3, "beta1": 0.5}, {"weight_decay": 0.3, "betas": (0.5, 0.999)}),
        ("sgd", {"momentum": 0.5, "nesterov": True}, {"momentum": 0.5, "nesterov": True}),
        ("rmsprop", {"alpha": 0.5, "momentum": 0.1}, {"alpha": 0.5, "momentum": 0.1}),
        ("lbfgs", {"max_iter": 3, "history": 4}, {"max_iter": 3, "history_size": 4, "line_search_fn": "strong_wolfe"}),
        ("lbfgs", {"line_search": False}, {"line_search_fn": None}),
    ],
    ids=["adam", "adamw", "sgd", "rmsprop", "lbfgs", "lbfgs-without-search"],
)
def test_settings_reach_torch(name: str, settings: dict[str, Any], expected: dict[str, Any]):
    group = OPTIMIZERS.get(name)(parameters(), **settings).param_groups[0]
    assert {key: group[key] for key in expected} == expected


def factors(name: str, total: int, **settings: Any) -> list[float]:
    factor = SCHEDULES.get(name)(total, **settings)
    return [factor(step) for step in range(total + 3)]


@pytest.mark.parametrize("name", SCHEDULES.names())
@pytest.mark.parametrize("total", [1, 2, 10, 1000])
def test_every_factor_is_a_share_also_beyond_the_end_and_in_the_shortest_run(name: str, total: int):
    assert all(0 < factor <= 1 for factor in factors(name, total))


def test_constant_stays():
    assert set(factors("constant", 5)) == {1.0}


def test_cosine_falls_from_one_to_its_end():
    found = factors("cosine", 10, final=0.1)
    assert found[0] == 1.0
    assert found[5] == pytest.approx(0.55)
    assert found[10:] == pytest.approx([0.1] * 3)
    assert found == sorted(found, reverse=True)


def test_cosine_warms_up_in_a_line():
    found = factors("cosine", 10, final=0.0, warmup=0.4)
    assert found[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert found[7] == pytest.approx((1 + math.cos(math.pi / 2)) / 2)


def test_step_drops_at_its_shares():
    assert factors("step", 8, drops=[0.25, 0.5], factor=0.1)[:6] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_step_without_settings_drops_as_the_ode_net_does():
    found = factors("step", 160)
    assert [step for step in range(1, 160) if found[step] < found[step - 1]] == [60, 100, 140]


def test_warmup_rises_in_a_line_and_stays():
    assert factors("warmup", 10, share=0.4)[:6] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 1.0])
