"""Closed random curves in the plane, by the way they turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch

from node_runner.datasets import DATASETS
from node_runner.datasets.parts.drawn import Drawn
from node_runner.datasets.parts.irregular import known_mean_std, some_of
from node_runner.datasets.parts.streams import Array, stream
from node_runner.settings import AtLeast, Between, Count, NonNegative
from node_runner.views import DataSpec, Series, View


CURVES, NOISE, CHOICE, CLASS = range(4)
"""Keys of a part's own streams."""


@DATASETS.register("turns", "closed random curves with dropped observations, by the sign of the area they enclose")
@dataclass(kw_only=True)
class Turns(Drawn[Series]):
    """x(t) = sum_k a_k cos 2 pi k t + b_k sin 2 pi k t, and y alike, on [0, 1]: class 1 if its signed area is positive.

    The area 1/2 int x dy - y dx = pi sum_k k (a_k d_k - b_k c_k) depends on the order in which points are passed, not
    on where they lie: reversed in time, a curve changes its class. Curves that hardly enclose anything are not used:
    the area is at least `margin` times its largest possible value for the harmonics drawn, pi sum_k k (a_k^2 + b_k^2 +
    c_k^2 + d_k^2) / 2. Half of the curves of each part are in either class.

    Args:
        dropped: share of the observations of each series that is taken away, at random times, both channels together.
        times: observations of a series before that, evenly spaced.
        harmonics: K; coefficients of harmonic k are normal with standard deviation 1/k.
        margin: least area, as a share of the largest that the harmonics drawn can enclose.
        noise: standard deviation of the Gaussian noise on every observation.
        train, val, test: numbers of series.

    Source: observations are dropped as in Kidger, Morrill, Foster, Lyons, Neural Controlled Differential Equations for
    Irregular Time Series (2020).
    """

    name = "turns"
    views = (View.paths,)

    dropped: Annotated[float, Between(0, 0.95)] = 0.5
    times: Annotated[int, AtLeast(2)] = 50
    harmonics: Count = 3
    margin: Annotated[float, Between(0, 0.5)] = 0.1
    noise: NonNegative = 0.05
    train: Count = 500
    val: Count = 250
    test: Count = 1000

    def spec(self, view: View) -> DataSpec:
        """Mean and deviation are those of the training observations that are left."""
        mean, std = known_mean_std(self.splits(view).train)
        return DataSpec(self.name, view, (2,), mean, std, num_classes=2, labels=("x", "y"))

    def _part(self, part: int, size: int) -> Series:
        """Series (N, T, 2) with labels (N,)."""
        labels = stream(self.seed, part, CLASS).permutation(np.arange(size) % 2)
        waves = self._waves(stream(self.seed, part, CURVES), size)
        # Mirrored where the curve turns the other way than its class says.
        waves[(signed_area(waves) > 0) != (labels == 1), 1] *= -1
        ts = np.linspace(0, 1, self.times)
        ys = curve(waves, ts) + self.noise * stream(self.seed, part, NOISE).standard_normal((size, self.times, 2))
        kept = max(1, round((1 - self.dropped) * self.times))
        chosen = some_of(stream(self.seed, part, CHOICE), size, self.times, kept)
        seen = torch.from_numpy(chosen).unsqueeze(-1).expand(-1, -1, 2).contiguous()
        values = torch.where(seen, torch.from_numpy(ys), 0)
        return Series(torch.from_numpy(ts), values, seen, seen, labels=torch.from_numpy(labels))

    def _waves(self, generator: np.random.Generator, count: int) -> Array:
        """Coefficients (count, 2 axes, 2 cos and sin, K) of curves that enclose enough."""
        found = np.empty((0, 2, 2, self.harmonics))
        order = np.arange(1, self.harmonics + 1)
        while len(found) < count:
            waves = generator.standard_normal((4 * count, 2, 2, self.harmonics)) / order
            largest = np.pi * (order * waves**2).sum(axis=(1, 2, 3)) / 2
            found = np.concatenate((found, waves[np.abs(signed_area(waves)) >= self.margin * largest]))
        return found[:count]


def curve(waves: Array, ts: Array) -> Array:
    """Places (N, T, 2) at ts (T,) of curves with coefficients (N, 2, 2, K)."""
    angles = 2 * np.pi * np.arange(1, waves.shape[-1] + 1)[:, None] * ts
    return np.einsum("nawk,wkt->nta", waves, np.stack((np.cos(angles), np.sin(angles))))


def signed_area(waves: Array) -> Array:
    """1/2 int x dy - y dx (N,) of curves with coefficients (N, 2, 2, K): positive counter-clockwise."""
    (a, b), (c, d) = waves[:, 0].swapaxes(0, 1), waves[:, 1].swapaxes(0, 1)
    area: Array = np.pi * (np.arange(1, waves.shape[-1] + 1) * (a * d - b * c)).sum(axis=-1)
    return area
