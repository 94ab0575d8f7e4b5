"""Damped oscillations of two channels, each with gaps of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch

from node_runner.datasets import DATASETS
from node_runner.datasets.parts.drawn import Drawn
from node_runner.datasets.parts.irregular import known_mean_std
from node_runner.datasets.parts.streams import TEST, stream
from node_runner.errors import ConfigError
from node_runner.settings import AtLeast, Between, Count, NonNegative, Positive
from node_runner.views import DataSpec, Series, View


DRAWS, NOISE, CHOICE = range(3)
"""Keys of a part's own streams."""


@DATASETS.register("irregular_oscillations", "damped oscillations, each channel with gaps of its own, to be continued")
@dataclass(kw_only=True)
class IrregularOscillations(Drawn[Series]):
    """Position and velocity over frequency, x = exp(-zeta w t) cos(w' t + phi) a and (x' + zeta w x) / w'.

    Amplitude, phase and frequency are drawn for each series: a from 0.5 to 1.5, w' from `slow` to `fast`. Up to
    `horizon` each value of each channel is seen with probability 1 - dropped; from there to `stretch` horizons
    nothing is seen. Training and validation know all values, with noise; the test knows them exactly.

    Args:
        dropped: share of the values up to the horizon that is not seen, channel by channel.
        times: places up to the horizon, evenly spaced.
        horizon: time up to which there are observations.
        stretch: length of a series in horizons.
        zeta: damping, as the share of the frequency at which the amplitude decays.
        slow, fast: range of the frequency, radians a unit of time.
        noise: standard deviation of the Gaussian noise on every observation.
        train, val, test: numbers of series.
    """

    name = "irregular_oscillations"
    views = (View.series,)

    dropped: Annotated[float, Between(0, 0.95)] = 0.7
    times: Annotated[int, AtLeast(2)] = 50
    horizon: Positive = 5.0
    stretch: Annotated[float, AtLeast(1)] = 2.0
    zeta: Annotated[float, Between(0, 0.9)] = 0.05
    slow: Positive = 1.0
    fast: Positive = 2.0
    noise: NonNegative = 0.05
    train: Count = 500
    test: Count = 300

    def check(self) -> None:
        """Refuse an empty range of frequencies."""
        if self.slow > self.fast:
            raise ConfigError(f"dataset.slow={self.slow:g}: expected at most dataset.fast={self.fast:g}; use less")

    def spec(self, view: View) -> DataSpec:
        """Mean and deviation are those of the training values."""
        mean, std = known_mean_std(self.splits(view).train)
        return DataSpec(self.name, view, (2,), mean, std, labels=("x", "v"))

    def _part(self, part: int, size: int) -> Series:
        """Series (N, T, 2)."""
        ts = self.horizon * np.arange(round(self.stretch * (self.times - 1)) + 1) / (self.times - 1)
        draws = stream(self.seed, part, DRAWS)
        amplitude = draws.uniform(0.5, 1.5, (size, 1))
        phase = draws.uniform(0, 2 * np.pi, (size, 1))
        frequency = draws.uniform(self.slow, self.fast, (size, 1))
        damped = amplitude * np.exp(-self.zeta / np.sqrt(1 - self.zeta**2) * frequency * ts)
        angle = frequency * ts + phase
        exact = np.stack((damped * np.cos(angle), -damped * np.sin(angle)), axis=-1)
        noisy = exact + self.noise * stream(self.seed, part, NOISE).standard_normal(exact.shape)
        seen = stream(self.seed, part, CHOICE).random(exact.shape) >= self.dropped
        seen[:, self.times :] = False
        truth = torch.from_numpy(exact) if part == TEST else None
        mask = torch.from_numpy(seen)
        return Series(torch.from_numpy(ts), torch.from_numpy(noisy), mask, torch.ones_like(mask), truth=truth)
