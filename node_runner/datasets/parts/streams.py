"""What every data set needs to make its parts: random streams, statistics, and a word for a view it lacks."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from node_runner.errors import ConfigError
from node_runner.views import View


Array = NDArray[np.float64]

TRAIN, VAL, TEST, LONG = range(4)
"""Keys of the random streams, one a part, so that no part's size moves the draws of another."""


def stream(seed: int, *key: int) -> np.random.Generator:
    """The random stream of one purpose: same seed and key, same numbers; any other key, independent ones."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def not_offered(name: str, view: View, views: tuple[View, ...]) -> ConfigError:
    """The error for a view that data set `name` does not have."""
    offered = " and ".join(each.value for each in views)
    return ConfigError(f"dataset={name} offers no view '{view.value}', only {offered}")


def mean_std(x: Tensor) -> tuple[Tensor, Tensor]:
    """(D,) mean and (D,) standard deviation over x (N, D).

    An axis along which the data do not vary gets 1 for its deviation, so that one can divide by it.
    """
    std, mean = torch.std_mean(x, dim=0, correction=0)
    return mean, torch.where(std > 0, std, torch.ones_like(std))
