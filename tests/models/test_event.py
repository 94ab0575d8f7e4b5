"""model=event on a ball whose bounces are known in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from node_runner.errors import ConfigError, SolveFailed
from node_runner.models.event import EventODE
from node_runner.views import View
from tests.models.builders import accurate_solve, spec


GRAVITY, RESTITUTION = 2.0, 0.8
TS = torch.linspace(0, 3, 31, dtype=torch.float64)


class Fall(nn.Module):
    """dh/dt = v, dv/dt = -g."""

    time_dependent = False

    def __init__(self) -> None:
        super().__init__()
        self.gravity = nn.Parameter(torch.tensor(GRAVITY, dtype=torch.float64))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return torch.stack((y[:, 1], -self.gravity.expand(len(y))), dim=1)


def ball(**settings: int) -> EventODE:
    """The true system: the ground at height 0, and a bounce that loses speed."""
    data = spec(View.trajectories, (2,), mean=[0.0, 0.0], std=[1.0, 1.0])
    model = EventODE(data, lambda shape: Fall(), accurate_solve(), {}, **settings).double()
    with torch.no_grad():
        model.event.plane.weight.copy_(torch.tensor([[1.0, 0.0]]))
        model.event.plane.bias.zero_()
        model.jump.affine.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, -RESTITUTION]]))
    return model


def impacts(height: float) -> list[float]:
    """Times of impact until TS[-1] of a ball dropped from a height."""
    t, speed = math.sqrt(2 * height / GRAVITY), math.sqrt(2 * height * GRAVITY)
    times = []
    while t <= float(TS[-1]):
        times.append(t)
        speed *= RESTITUTION
        t += 2 * speed / GRAVITY
    return times


def dropped(*heights: float) -> Tensor:
    return torch.tensor([[height, 0.0] for height in heights], dtype=torch.float64)


def test_every_ball_has_its_own_times_of_impact():
    heights = (0.3, 1.0, 2.0, 20.0)
    output = ball()(dropped(*heights), TS)
    for found, height in zip(output.events, heights, strict=True):
        assert found[found >= 0].tolist() == pytest.approx(impacts(height), abs=1e-7)
    assert output.scalars["events"] == sum(len(impacts(height)) for height in heights) / 4


def test_states_between_impacts_are_those_of_free_flight():
    output = ball()(dropped(1.0), TS)
    (first, second, *_) = impacts(1.0)
    for t, (height, _) in zip(TS.tolist(), output.value[:, 0].tolist(), strict=True):
        if t < first:
            assert height == pytest.approx(1 - GRAVITY * t**2 / 2, abs=1e-6)
        elif t < second:
            up = RESTITUTION * math.sqrt(2 * GRAVITY)
            assert height == pytest.approx(up * (t - first) - GRAVITY * (t - first) ** 2 / 2, abs=1e-6)


def test_gradients_of_times_and_states_agree_with_finite_differences():
    y0 = dropped(0.7, 1.3)

    def value(model: EventODE) -> Tensor:
        times = model.event_times(y0, TS)
        return (times.clamp(min=0) ** 2).sum() + model(y0, TS).value.square().mean()

    model = ball()
    value(model).backward()
    for parameter in model.parameters():
        gradient = parameter.grad
        assert gradient is not None
        for place in range(parameter.numel()):
            changed = []
            for step in (1e-5, -1e-5):
                with torch.no_grad():
                    parameter.view(-1)[place] += step
                    changed.append(float(value(model)))
                    parameter.view(-1)[place] -= step
            difference = (changed[0] - changed[1]) / 2e-5
            assert float(gradient.reshape(-1)[place]) == pytest.approx(difference, rel=1e-4, abs=1e-4)


def test_without_an_event_it_is_a_plain_solve():
    output = ball()(dropped(100.0), TS)
    assert output.events is not None and output.events.shape == (1, 0)
    torch.testing.assert_close(output.value[:, 0, 0].detach(), 100 - GRAVITY * TS**2 / 2, rtol=0, atol=1e-5)


def test_more_events_than_allowed_end_the_solve_with_what_to_do():
    with pytest.raises(SolveFailed, match=r"more than model.max_events=2 .* use a larger model.max_events"):
        ball(max_events=2)(dropped(0.3), TS)


def test_an_axis_that_the_data_lack_is_refused():
    with pytest.raises(ConfigError, match=r"model.event_axis=2: the state has 2 axes"):
        ball(event_axis=2)
