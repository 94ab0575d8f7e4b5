"""The moving average of the weights."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from node_runner.training.average import MovingAverage


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 2))


def change(model: nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    model(torch.randn(6, 3, dtype=model[0].weight.dtype))  # moves the buffers


def test_weights_of_k_steps_ago_count_as_the_kth_power_of_the_decay():
    model = network().double()
    mine, seen = MovingAverage(model, 0.9), []
    for step in range(1, 41):
        change(model)
        mine.update()
        seen.append(copy.deepcopy(model.state_dict()))
        shares = [0.9 ** (step - k) for k in range(1, step + 1)]
        for name, value in mine.model().named_parameters():
            expected = sum(share * state[name] for share, state in zip(shares, seen, strict=True)) / sum(shares)
            torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)


def test_in_the_long_run_it_is_that_of_torch():
    model = network().double()
    mine, reference = MovingAverage(model, 0.5), AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    for _ in range(60):
        change(model)
        mine.update()
        reference.update_parameters(model)
    expected = dict(reference.module.named_parameters())
    for name, value in mine.model().named_parameters():
        torch.testing.assert_close(value, expected[name], rtol=1e-12, atol=1e-12)


def test_buffers_are_those_of_the_model_now():
    model = network()
    average = MovingAverage(model, 0.9)
    average.update()
    change(model)
    assert torch.equal(average.model()[1].running_mean, model[1].running_mean)


def test_it_does_not_touch_the_model():
    model = network()
    before = copy.deepcopy(model.state_dict())
    average = MovingAverage(model, 0.5)
    average.update()
    average.model()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_saved_average_is_gone_on_from():
    model = network()
    first = MovingAverage(model, 0.9)
    change(model)
    first.update()
    second = MovingAverage(model, 0.9)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    change(model)
    first.update()
    second.update()
    for mine, other in zip(first.model().parameters(), second.model().parameters(), strict=True):
        assert torch.equal(mine, other)
