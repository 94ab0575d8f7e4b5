"""The learning rate of each step: a function of the step alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from node_runner.training.rates import LearningRate


def optimizer() -> torch.optim.Optimizer:
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (0.4, 0.02)]
    return torch.optim.SGD(groups)


def test_the_rates_are_those_of_a_lambda_lr():
    mine, theirs = optimizer(), optimizer()
    rates, reference = LearningRate(mine, lambda step: 1 / (1 + step)), LambdaLR(theirs, lambda step: 1 / (1 + step))
    for step in range(5):
        rates.set(step)
        assert [group["lr"] for group in mine.param_groups] == [group["lr"] for group in theirs.param_groups]
        theirs.step()
        reference.step()


def test_a_rate_can_be_asked_for_without_being_set():
    mine = optimizer()
    rates = LearningRate(mine, lambda step: 1 / (1 + step))
    assert rates.at(3) == pytest.approx(0.1)
    assert mine.param_groups[0]["lr"] == 0.4


def test_an_optimiser_that_has_loaded_a_state_gets_its_rate():
    mine, other = optimizer(), optimizer()
    rates = LearningRate(mine, lambda step: 0.5**step)
    mine.load_state_dict(other.state_dict())
    rates.set(1)
    assert mine.param_groups[0]["lr"] == pytest.approx(0.2)
