"""Derivative matching: right slopes, a field that is found without a solve, and then the task as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from node_runner.batches import TrajectoryBatch
from node_runner.errors import ConfigError
from node_runner.runs.rehearsal import rehearse
from node_runner.tasks import TrajectoryRegression
from node_runner.tasks.techniques.derivatives import MatchedDerivatives, slopes
from node_runner.tasks.techniques.warm_start import Matched
from node_runner.views import View
from tests.models.builders import LinearField, make_model, spec
from tests.runs import make_run, trainer_of


def test_slopes_are_exact_for_parabolas_on_uneven_times_and_of_second_order_otherwise():
    ts = torch.tensor([0.0, 0.3, 0.4, 1.0], dtype=torch.float64)
    a = torch.randn(3, 5, 2, dtype=torch.float64)
    t = ts[:, None, None]
    torch.testing.assert_close(slopes(ts, a[0] + a[1] * t + a[2] * t**2), (a[1] + 2 * a[2] * t)[1:-1])
    errors = []
    for count in (41, 81):
        ts = torch.linspace(0, 1, count, dtype=torch.float64)
        t = ts[:, None, None]
        errors.append(float((slopes(ts, t.exp()) - t.exp()[1:-1]).abs().max()))
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)


def test_the_true_field_matches_and_what_is_not_observed_does_not_count():
    data = spec(View.trajectories, (1,), mean=[0.0], std=[2.0])
    ts = torch.linspace(0, 1, 101, dtype=torch.float64)
    ys = ts.exp()[:, None, None].repeat(1, 3, 1)
    right, wrong = (make_model("node", data, lambda shape, k=k: LinearField([[k]])) for k in (1.0, 2.0))
    task = MatchedDerivatives(TrajectoryRegression(data, {}), data, 1, right)
    batch = TrajectoryBatch(ts, torch.zeros(3, dtype=torch.float64), ys, None)
    assert float(task.step(right, Matched(batch)).loss.detach()) < 1e-8
    # The wrong field is off by y: its square in units of the spread is the mean of (y / 2)^2 over inner times.
    out = task.step(wrong, Matched(batch))
    assert float(out.loss.detach()) == pytest.approx(float((ys[1:-1] / 2).square().mean()), rel=1e-3)
    assert out.solves == []
    mask = torch.ones(101, 3, dtype=torch.bool)
    mask[50, 1] = False
    ys[50, 1] = torch.nan
    hidden = task.step(right, Matched(batch._replace(ys=ys, mask=mask)))
    assert float(hidden.loss.detach()) < 1e-8


def test_the_first_steps_match_and_the_later_ones_solve(tmp_path: Path):
    run = make_run(solver="midpoint", trainer__warm_start=2, trainer__steps=4)
    trainer, experiment, lines = trainer_of(run, tmp_path)
    assert rehearse(experiment, trainer.batch).choices
    trainer.train()
    assert [nfe > 0 for nfe in lines.of("nfe/forward")] == [False, False, True, True]
    assert len(lines.of("train/derivative_matching")) == 2


def test_steps_without_a_solve_are_no_reason_to_compile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    trainer, experiment, _ = trainer_of(make_run(trainer__warm_start=900, trainer__steps=1000), tmp_path)
    told: list[int] = []
    monkeypatch.setattr(experiment.solve, "expect", told.append)
    rehearse(experiment, trainer.batch, trainer.total)
    assert told == [100]


def test_a_model_without_a_field_is_refused_before_any_step():
    data = spec(View.trajectories, (1,), mean=[0.0], std=[2.0])
    with pytest.raises(ConfigError, match=r"no field in the data's units; use trainer\.warm_start=0"):
        MatchedDerivatives(TrajectoryRegression(data, {}), data, 1, nn.Identity())


def test_data_without_trajectories_and_segments_without_an_inner_point_are_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"use trainer\.warm_start=0"):
        trainer_of(make_run(dataset="two_moons", model="node", trainer__warm_start=1), tmp_path)
    with pytest.raises(ConfigError, match=r"leaves none of trainer\.steps=4 for training with a solve"):
        trainer_of(make_run(trainer__warm_start=4, trainer__steps=4), tmp_path)
    with pytest.raises(ConfigError, match="at least 3 points"):
        trainer_of(make_run(trainer__warm_start=1, trainer__window=2), tmp_path)
