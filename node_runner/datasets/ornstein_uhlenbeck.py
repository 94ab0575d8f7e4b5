"""Paths of the Ornstein-Uhlenbeck process, whose law is known in every respect."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from node_runner.datasets import DATASETS
from node_runner.datasets.parts.drawn import Drawn
from node_runner.datasets.parts.irregular import known_mean_std, some_of
from node_runner.datasets.parts.streams import TEST, Array, stream
from node_runner.errors import ConfigError
from node_runner.settings import AtLeast, Between, Count, NonNegative, Positive
from node_runner.views import DataSpec, Law, Series, View


PATHS, NOISE, CHOICE = range(3)
"""Keys of a part's own streams."""


@DATASETS.register("ornstein_uhlenbeck", "noisy paths of a process that noise drives and a spring calls back")
@dataclass(kw_only=True)
class OrnsteinUhlenbeck(Drawn[Series]):
    """dx = rate (level - x) dt + volatility dW, x(0) ~ N(start, spread^2), observed with noise.

    Drawn by the exact law of a step, N(level + (x - level) e^(-rate dt), volatility^2 (1 - e^(-2 rate dt)) / (2 rate)):
    there is no error of a solver in it. The stationary law is N(level, volatility^2 / (2 rate)). In training and
    validation a path is seen throughout; in the test nothing is seen after `seen_until` of the horizon.

    Args:
        rate: of the return to `level`, one over a unit of time.
        level: mean of the stationary law.
        volatility: of the noise that drives the process.
        start, spread: mean and standard deviation of x(0).
        noise: standard deviation of the Gaussian noise on every observation.
        dropped: share of the times of each path that is taken away, at random.
        seen_until: share of the horizon up to which a test path is seen.
        times: places from 0 to the horizon, evenly spaced.
        horizon: end of a path.
        train, val, test: numbers of paths.

    Source: Uhlenbeck, Ornstein, On the theory of the Brownian motion (1930).
    """

    name = "ornstein_uhlenbeck"
    views = (View.processes,)

    rate: Positive = 1.0
    level: float = 0.0
    volatility: Positive = 0.5
    start: float = 1.0
    spread: NonNegative = 0.2
    noise: NonNegative = 0.3
    dropped: Annotated[float, Between(0, 0.95)] = 0.75
    seen_until: Annotated[float, Between(0.05, 0.95)] = 0.5
    times: Annotated[int, AtLeast(4)] = 61
    horizon: Positive = 3.0
    val: Count = 300

    def check(self) -> None:
        """Refuse first states beside which the rest is nothing: the law's covariance has no Cholesky factor then."""
        rest = max(self.noise, self.volatility / math.sqrt(2 * self.rate))
        if self.spread > 1e6 * rest:
            raise ConfigError(f"dataset.spread={self.spread:g}: expected at most a million times the noise and the "
                              f"stationary deviation, of which the larger is {rest:g}; use less")  # fmt: skip

    def spec(self, view: View) -> DataSpec:
        """Mean and deviation are those of the training values that are seen."""
        mean, std = known_mean_std(self.splits(view).train)
        return DataSpec(self.name, view, (1,), mean, std, labels=("x",), law=self.law())

    def law(self) -> Law:
        """The process is Gaussian, with Cov(x(s), x(t)) = v e^(-rate |s - t|) + (spread^2 - v) e^(-rate (s + t)),
        v being its stationary variance.
        """
        rate, level, stationary = self.rate, self.level, self.volatility**2 / (2 * self.rate)

        def mean(ts: Tensor) -> Tensor:
            return level + (self.start - level) * torch.exp(-rate * ts)

        def covariance(s: Tensor, t: Tensor) -> Tensor:
            s, t = s.unsqueeze(1), t.unsqueeze(0)
            start = (self.spread**2 - stationary) * torch.exp(-rate * (s + t))
            return stationary * torch.exp(-rate * (s - t).abs()) + start

        def drift(x: Tensor) -> Tensor:
            return rate * (level - x)

        def diffusion(x: Tensor) -> Tensor:
            return torch.full_like(x, self.volatility)

        return Law(mean, covariance, drift, diffusion, self.noise)

    def _part(self, part: int, size: int) -> Series:
        """Series (N, T, 1)."""
        ts = self.horizon * np.arange(self.times) / (self.times - 1)
        x = self._paths(stream(self.seed, part, PATHS), size)
        x = x + self.noise * stream(self.seed, part, NOISE).standard_normal(x.shape)
        kept = max(1, round((1 - self.dropped) * self.times))
        chosen = some_of(stream(self.seed, part, CHOICE), size, self.times, kept)
        shown = chosen & (ts <= self.seen_until * self.horizon) if part == TEST else chosen
        known, seen = (torch.from_numpy(where).unsqueeze(-1) for where in (chosen, shown))
        values = torch.where(known, torch.from_numpy(x).unsqueeze(-1), 0)
        return Series(torch.from_numpy(ts), values, seen, known)

    def _paths(self, generator: np.random.Generator, count: int) -> Array:
        """States (N, T)."""
        draws = generator.standard_normal((count, self.times))
        decay = math.exp(-self.rate * self.horizon / (self.times - 1))
        size = self.volatility * math.sqrt((1 - decay**2) / (2 * self.rate))
        x = np.empty_like(draws)
        x[:, 0] = self.start + self.spread * draws[:, 0]
        for k in range(1, self.times):
            x[:, k] = self.level + decay * (x[:, k - 1] - self.level) + size * draws[:, k]
        return x
