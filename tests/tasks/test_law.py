"""What a Gaussian law says of observations, against closed forms of a Markov process."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal
from torch.distributions import Normal as Gaussian

from node_runner.datasets import DATASETS
from node_runner.tasks.parts.law import Normal, given, increment, log_likelihood, marginal, wasserstein
from node_runner.views import Law, Series, View


def process(noise: float = 0.0, dropped: float = 0.5) -> tuple[Law, Series]:
    data = DATASETS.get("ornstein_uhlenbeck")(noise=noise, dropped=dropped, train=1, val=1, test=12, times=21)
    return data.law(), data.splits(View.processes).test


def arranged(part: Series) -> tuple[Tensor, Tensor, Tensor]:
    """Times, values that are seen (T, B, D), and which those are."""
    seen = part.seen.transpose(0, 1)
    return part.ts, torch.where(seen, part.ys.transpose(0, 1), 0), seen


def test_the_likelihood_is_that_of_the_transitions():
    law, part = process(dropped=0.0)
    ts, values, seen = arranged(part)
    last = int(seen[:, 0].sum()) - 1
    x, dt = values[: last + 1, :, 0], float(ts[1])
    stationary, decay = 0.5**2 / 2, math.exp(-dt)
    step = Gaussian(decay * x[:-1], math.sqrt(stationary * (1 - decay**2)))
    start = Gaussian(*torch.tensor([1.0, 0.2], dtype=torch.float64))
    exact = start.log_prob(x[0]) + step.log_prob(x[1:]).sum(dim=0)
    torch.testing.assert_close(log_likelihood(law, ts, values, seen), exact)


def test_the_likelihood_with_noise_and_gaps_is_that_of_a_normal_vector():
    law, part = process(noise=0.2)
    ts, values, seen = arranged(part)
    for row, found in enumerate(log_likelihood(law, ts, values, seen)):
        there = seen[:, row, 0]
        k = law.covariance(ts[there], ts[there]) + 0.04 * torch.eye(int(there.sum()), dtype=torch.float64)
        exact = MultivariateNormal(law.mean(ts[there]), k).log_prob(values[there, row, 0])
        torch.testing.assert_close(found, exact)


def test_after_an_exact_observation_only_the_last_one_counts():
    law, part = process()
    ts, values, seen = arranged(part)
    found = given(law, ts, values, seen)
    stationary = 0.5**2 / 2
    for row in range(values.shape[1]):
        last = int(seen[:, row, 0].nonzero()[-1])
        wait = ts[last + 1 :] - ts[last]
        mean = torch.exp(-wait) * values[last, row, 0]
        std = (stationary * (1 - torch.exp(-2 * wait))).sqrt()
        torch.testing.assert_close(found.mean[last + 1 :, row, 0], mean)
        torch.testing.assert_close(found.std[last + 1 :, row, 0], std)
        torch.testing.assert_close(found.mean[last, row, 0], values[last, row, 0])


def test_given_nothing_it_is_the_marginal_law_and_noise_is_part_of_an_observation():
    law, part = process(noise=0.2)
    ts, values, seen = arranged(part)
    found, plain = given(law, ts, values, torch.zeros_like(seen)), marginal(law, ts)
    for mine, other in zip(found, plain, strict=True):
        torch.testing.assert_close(mine[:, 0, 0], other)
    assert float(plain.std[0]) == pytest.approx(math.hypot(0.2, 0.2))
    step = increment(law, ts)
    torch.testing.assert_close(step.mean, law.mean(ts).diff())
    dt = float(ts[1])
    # x1 - x0 = (e^-dt - 1) x0 + driven, and two noises.
    exact = (math.exp(-dt) - 1) ** 2 * 0.04 + 0.125 * (1 - math.exp(-2 * dt)) + 2 * 0.04
    assert float(step.std[0]) == pytest.approx(math.sqrt(exact))


def test_wasserstein_distances_of_normal_laws_are_known():
    law = Normal(torch.tensor([0.5, -1.0]).double(), torch.tensor([1.0, 2.0]).double())
    levels = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    standard = torch.special.ndtri(levels)[torch.randperm(1000)].unsqueeze(1)
    exact = law.mean + law.std * standard
    torch.testing.assert_close(wasserstein(exact, law), torch.zeros(2).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(wasserstein(exact + 0.3, law), torch.full((2,), 0.3).double())
    # Between N(0, s) and N(0, 2 s) it is s E|z| = s sqrt(2 / pi).
    wider = law.mean + 2 * law.std * standard
    torch.testing.assert_close(wasserstein(wider, law), law.std * math.sqrt(2 / math.pi), rtol=2e-3, atol=0)
