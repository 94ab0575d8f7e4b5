"""A model with events that is matched without a solve: right for the true system, and able to find it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from node_runner.batches import TrajectoryBatch
from node_runner.datasets.bouncing_ball import BouncingBall
from node_runner.models.event import EventODE
from node_runner.models.parts.matching import heun
from node_runner.tasks import TrajectoryRegression
from node_runner.tasks.parts.segments import whole
from node_runner.tasks.techniques.derivatives import MatchedDerivatives
from node_runner.tasks.techniques.warm_start import Matched
from node_runner.tasks.trajectory import event_errors
from node_runner.views import DataSpec, Trajectories, View
from tests.models.builders import LinearField, accurate_solve, field_factory


def ball(**settings: float) -> tuple[DataSpec, Trajectories]:
    data = BouncingBall(times=60, long=0, **settings)
    return data.spec(View.trajectories), data.splits(View.trajectories).train


def untrained(data: DataSpec) -> EventODE:
    torch.manual_seed(0)
    return EventODE(data, field_factory("affine"), accurate_solve(), {}).double()


def true_model(data: DataSpec) -> EventODE:
    """The true system in standardised coordinates."""
    (mean_h, mean_v), (std_h, std_v) = data.mean.tolist(), data.std.tolist()
    a, b = [[0.0, std_v / std_h], [0.0, 0.0]], [mean_v / std_h, -9.81 / std_v]
    model = EventODE(data, lambda shape: LinearField(a, b), accurate_solve(), {}).double()
    with torch.no_grad():
        model.event.plane.bias.fill_(mean_h / std_h)
        model.jump.affine.weight[1, 1] = -0.9
        model.jump.affine.bias[1] = -1.9 * mean_v / std_v
    return model


def batch_of(part: Trajectories) -> TrajectoryBatch:
    return whole(part, torch.arange(len(part)))


def parts(model: EventODE, batch: TrajectoryBatch) -> Tensor:
    return torch.stack(model.matching(batch.ts[:, None] + batch.t0, (batch.ys - model.mean) / model.std, batch.mask))


def test_the_true_ball_matches_and_another_does_not():
    data, part = ball()
    model = true_model(data)
    # The rules are exact for free flight; the event's side is clear but for a few observations close to it.
    field, event, jump = parts(model, batch_of(part)).tolist()
    assert field < 1e-20 and jump < 1e-5 and 0 < event < 1e-3
    with torch.no_grad():
        model.event.plane.bias.sub_(0.6)
        assert float(parts(model, batch_of(part))[1]) > 0.1
        model.event.plane.bias.add_(0.6)
        model.jump.affine.weight[1, 1] = 0.9
        assert float(parts(model, batch_of(part))[2]) > 1
        model.field.b.add_(1.0)
        assert float(parts(model, batch_of(part))[0]) == pytest.approx(1, rel=1e-6)


def test_it_finds_the_ball_and_its_times_of_impact():
    data, part = ball()
    model = untrained(data)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 800)
    batch = batch_of(part)
    for _ in range(800):
        optimizer.zero_grad()
        model.mismatch(batch).backward()
        optimizer.step()
        schedule.step()
    unseen = BouncingBall(times=60, long=0).splits(View.trajectories).test
    with torch.no_grad():
        output = model(unseen.ys[:, 0], unseen.ts)
    time, count, wrong = event_errors(output.events, unseen.events, float(unseen.ts[-1])).tolist()
    assert wrong == 0
    assert time / count < 3e-3


def test_without_a_jump_only_the_field_is_matched():
    data, part = ball(height_min=100.0, height_max=110.0)
    model = untrained(data)
    field, event, jump = parts(model, batch_of(part))
    assert float(jump.detach()) == 0
    assert float(field.detach()) > 0 and float(event.detach()) >= 0
    model.mismatch(batch_of(part)).backward()


def test_what_is_not_observed_does_not_count():
    data, part = ball()
    model = true_model(data)
    batch = batch_of(part)
    mask = torch.ones(batch.ys.shape[:2], dtype=torch.bool)
    mask[20:25, 3] = False
    ys = batch.ys.clone()
    ys[20:25, 3] = torch.nan
    field, event, jump = parts(model, batch._replace(ys=ys, mask=mask)).tolist()
    assert field < 1e-20 and jump < 1e-5 and event < 1e-3


def test_a_warm_start_asks_the_model_itself():
    data, part = ball()
    model = untrained(data)
    task = MatchedDerivatives(TrajectoryRegression(data, {}), data, 1, model)
    output = task.step(model, Matched(batch_of(part)))
    assert float(output.loss.detach()) == float(model.mismatch(batch_of(part)).detach())
    output.loss.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


def test_heun_is_of_second_order():
    errors = []
    for count in (20, 40):
        y, step = torch.ones(1, 1, dtype=torch.float64), torch.full((1,), 1 / count, dtype=torch.float64)
        for k in range(count):
            y = heun(lambda t, y: y * torch.cos(t)[:, None], k * step, y, step)
        errors.append(abs(float(y) - float(torch.tensor(1.0).double().sin().exp())))
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)
