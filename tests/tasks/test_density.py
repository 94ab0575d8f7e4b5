"""Density estimation: likelihoods and bits by hand, and the noise that makes grey levels continuous."""

from __future__ import annotations

import math

import pytest
import torch

from node_runner.batches import PointBatch
from node_runner.settings import TrainerConfig
from node_runner.tasks.density import Density
from node_runner.views import Points, View
from tests.models.builders import spec
from tests.tasks.models import Normal


X = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 3.0]], dtype=torch.float64)
NLL = (0 + 1 / 2 + 9 / 2) / 3 + math.log(2 * math.pi)


def task(levels: int = 0) -> Density:
    return Density(spec(View.points, (2,), mean=[0.0, 0.0], std=[1.0, 1.0], levels=levels), {})


def test_the_loss_of_a_batch_is_the_mean_negative_log_likelihood_in_nats():
    output = task().step(Normal(2), PointBatch(X))
    assert float(output.loss.detach()) == pytest.approx(NLL)
    assert set(output.scalars) == {"loss"}


@pytest.mark.parametrize("batch_size", [1, 2, 10])
def test_evaluation_measures_the_same_in_parts_as_in_one(batch_size: int):
    metrics = task().evaluate(Normal(2), Points(X), batch_size)
    assert metrics == pytest.approx({"loss": NLL, "nll": NLL, "nfe": 7.0})


def test_grey_levels_get_uniform_noise_of_one_level_and_are_reported_in_bits():
    model = Normal(2)
    x = torch.randint(0, 16, (4000, 2)).double()
    metrics = task(levels=16).evaluate(model, Points(x), 500)
    noise = torch.cat(model.seen) - x
    assert float(noise.min()) >= 0
    assert float(noise.max()) < 1
    assert float(noise.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(noise.std()) == pytest.approx(1 / math.sqrt(12), abs=0.02)
    assert metrics["bits_per_dim"] == pytest.approx(metrics["nll"] / (2 * math.log(2)))
    step = task(levels=16).step(model, PointBatch(x))
    assert float(step.scalars["bits_per_dim"]) == pytest.approx(float(step.loss.detach()) / (2 * math.log(2)))


def test_the_noise_is_drawn_anew_for_each_batch_and_repeats_with_the_seed():
    model, x = Normal(2), torch.zeros(5, 2, dtype=torch.float64)
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        task(levels=16).step(model, PointBatch(x))
    assert not torch.equal(model.seen[0], model.seen[1])
    assert torch.equal(model.seen[0], model.seen[2])


def test_continuous_data_get_no_noise():
    model = Normal(2)
    task().step(model, PointBatch(X))
    assert torch.equal(model.seen[0], X)


def test_each_point_comes_once_an_epoch():
    x = torch.arange(10.0)[:, None]
    steps, batch = task().batches(Points(x), TrainerConfig(batch_size=4), 0, lambda step: 0.0)
    assert sorted(torch.cat([batch(step).x for step in range(steps)])[:, 0].tolist()) == list(range(10))
