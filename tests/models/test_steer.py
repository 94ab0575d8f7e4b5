"""STEER: ends spread evenly about T in training, T itself in evaluation."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from node_runner.errors import ConfigError
from node_runner.models.parts.steer import steered
from node_runner.views import View
from tests.models.builders import LinearField, field_factory, make_model, spec


LABELLED = spec(View.labelled, (2,), mean=[0.0, 0.0], std=[1.0, 1.0], num_classes=2)
POINTS = spec(View.points, (2,), mean=[0.0, 0.0], std=[1.0, 1.0])


def test_ends_are_uniform_about_the_end_time():
    torch.manual_seed(0)
    times = torch.tensor([0.0, 2.0], dtype=torch.float64)
    ends = torch.stack([steered(times, 0.5)[0][1] for _ in range(4000)])
    assert 1.5 <= float(ends.min()) < 1.51 and 2.49 < float(ends.max()) <= 2.5
    assert float(ends.mean()) == pytest.approx(2.0, abs=0.02)
    assert float(ends.var()) == pytest.approx(1 / 12, rel=0.05)
    assert steered(times, 0.0) == (times, {})


def test_a_classifier_reads_its_state_at_the_end_that_was_drawn():
    model = make_model("node", LABELLED, lambda shape: LinearField([[1.0, 0.0], [0.0, 1.0]]), steer=0.5)
    model.head = nn.Identity()
    x = torch.randn(4, 2, dtype=torch.float64)
    output = model.train()(x)
    torch.testing.assert_close(output.value, x * output.scalars["end_time"].exp(), rtol=1e-6, atol=1e-6)
    assert float(output.scalars["end_time"]) != 1.0
    plain = model.eval()(x)
    torch.testing.assert_close(plain.value, x * torch.ones(()).double().exp(), rtol=1e-6, atol=1e-6)
    assert plain.scalars == {}


def test_a_flow_integrates_the_divergence_to_the_end_that_was_drawn():
    model = make_model("cnf", POINTS, lambda shape: LinearField([[0.5, 0.0], [0.0, 0.5]]), steer=0.5)
    x = torch.zeros(1, 2, dtype=torch.float64)
    output = model.train()(x)
    # The origin stays where it is: the log-density is that of the base and the integral of a trace of 1.
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(1) + output.scalars["end_time"]
    torch.testing.assert_close(output.value, expected)
    assert model.eval()(x).scalars == {}


@pytest.mark.parametrize("name", ["node", "cnf"])
def test_an_interval_that_reaches_the_start_is_refused(name: str):
    with pytest.raises(ConfigError, match=r"use model\.steer=0\.5 or less"):
        make_model(name, LABELLED if name == "node" else POINTS, field_factory("mlp", width=4), steer=1.0)
