"""The Ornstein-Uhlenbeck data: their law, and what of them may be seen."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from node_runner.datasets import DATASETS
from node_runner.views import Series, View


def paths(**settings: Any) -> Series:
    data = DATASETS.get("ornstein_uhlenbeck")(**{"dropped": 0.0, "train": 8000, "val": 1, "test": 40, **settings})
    return data.splits(View.processes).train


def test_values_have_the_mean_and_the_covariance_of_the_law():
    data = DATASETS.get("ornstein_uhlenbeck")(dropped=0.0, noise=0.0, train=8000, val=1, test=1, times=13, level=0.3)
    part, law = data.splits(View.processes).train, data.law()
    x = part.ys[..., 0]
    ts = part.ts
    # Five deviations of an estimate from 8,000 paths.
    assert float((x.mean(dim=0) - law.mean(ts)).abs().max()) < 5 * 0.36 / math.sqrt(8000)
    torch.testing.assert_close(x.T.cov(), law.covariance(ts, ts), rtol=0, atol=5 * 0.13 * math.sqrt(2 / 8000))


def test_a_long_wait_leads_to_the_stationary_law_and_a_short_one_shows_drift_and_diffusion():
    data = DATASETS.get("ornstein_uhlenbeck")(rate=2.0, level=0.5, volatility=0.8, start=-1.0, spread=0.0)
    law = data.law()
    late = torch.tensor([50.0], dtype=torch.float64)
    assert float(law.mean(late)) == pytest.approx(0.5)
    assert float(law.covariance(late, late)) == pytest.approx(0.8**2 / 4)
    dt = torch.tensor([1e-6], dtype=torch.float64)
    start = torch.tensor([-1.0], dtype=torch.float64)
    assert float((law.mean(dt) - start) / dt) == pytest.approx(float(law.drift(start)), rel=1e-4)
    assert float(law.covariance(dt, dt) / dt) == pytest.approx(float(law.diffusion(start)) ** 2, rel=1e-4)


def test_noise_is_added_to_every_observation():
    quiet, noisy = paths(noise=0.0), paths(noise=0.3)
    added = noisy.ys - quiet.ys
    assert float(added.std()) == pytest.approx(0.3, rel=0.01)
    assert float((added[:, 1:] * added[:, :-1]).mean()) == pytest.approx(0, abs=1e-3)


def test_a_test_path_is_known_beyond_what_is_seen_and_a_training_path_is_not():
    data = DATASETS.get("ornstein_uhlenbeck")(dropped=0.75, seen_until=0.5, train=20, val=20, test=40)
    splits = data.splits(View.processes)
    for part in (splits.train, splits.val):
        assert torch.equal(part.seen, part.known)
        assert bool((part.known.sum(dim=1) == 15).all())
    test = splits.test
    late = test.ts > 1.5 + 1e-9
    assert not test.seen[:, late].any()
    assert torch.equal(test.seen[:, ~late], test.known[:, ~late])
    assert bool(test.known[:, late].any())
