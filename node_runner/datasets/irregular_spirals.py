"""Spirals of two kinds in the plane, observed at few irregular times: where latent ODEs were first tried."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch

from node_runner.datasets import DATASETS
from node_runner.datasets.parts.drawn import Drawn
from node_runner.datasets.parts.irregular import known_mean_std, some_of
from node_runner.datasets.parts.streams import TEST, TRAIN, Array, stream
from node_runner.errors import ConfigError
from node_runner.settings import AtLeast, Count, CountOrZero, NonNegative
from node_runner.views import DataSpec, Series, View


TURN, POINTS = 6 * np.pi, 500
"""A spiral winds through this angle, at one radian a unit of time, and has this many places on it."""

FIRST, ROOM = 50, 50
"""Places at either end of a spiral that are not used: there it is a point, or opens too fast."""

START, NOISE, CHOICE, KIND = range(4)
"""Keys of a part's own streams."""


@DATASETS.register("irregular_spirals", "spirals of two kinds, seen at a few irregular times, to be continued")
@dataclass(kw_only=True)
class IrregularSpirals(Drawn[Series]):
    """Half of the spirals open clockwise, half counter-clockwise; each starts at its own place on its spiral.

    Counter-clockwise r = 0.3 theta about (5, 0); clockwise r = 15 / theta about (-5, 0), with theta falling. A
    series has `times` places in the window, of which `observed` are seen with noise, and `stretch` places after
    it. Training knows the seen observations and nothing else; its windows lie anywhere on the spirals, those of the
    other parts where the stretch still fits. Validation knows every place of window and stretch, with noise; the test
    knows them exactly.

    Args:
        observed: places that are seen, drawn for each series without replacement.
        times: places in the window, 6 pi / 500 of time apart.
        stretch: further places, which training does not know.
        noise: standard deviation of the Gaussian noise on every observation, in the units of the data.
        train, val, test: numbers of spirals.

    Source: Chen, Rubanova, Bettencourt, Duvenaud, Neural Ordinary Differential Equations (2018), section 5; the
    two curves are those of torchdiffeq's examples/latent_ode.py.
    """

    name = "irregular_spirals"
    views = (View.series,)

    observed: Count = 30
    times: Annotated[int, AtLeast(2)] = 100
    stretch: CountOrZero = 100
    noise: NonNegative = 0.1

    def check(self) -> None:
        """Refuse more observations than there are places, and series that are longer than a spiral."""
        if self.observed > self.times:
            raise ConfigError(f"dataset.observed={self.observed}: the window has only {self.times} places; "
                              f"use at most dataset.observed={self.times}")  # fmt: skip
        longest = POINTS - FIRST - ROOM
        if self.times + self.stretch > longest:
            raise ConfigError(f"dataset.times + dataset.stretch = {self.times + self.stretch}: a spiral has only "
                              f"{longest} places; use fewer of either")  # fmt: skip

    def spec(self, view: View) -> DataSpec:
        """Mean and deviation are those of the seen training observations."""
        mean, std = known_mean_std(self.splits(view).train)
        return DataSpec(self.name, view, (2,), mean, std, labels=("x", "y"))

    def _part(self, part: int, size: int) -> Series:
        """Series (N, T, 2): T = times in training, times + stretch in validation and test."""
        length = self.times + (0 if part == TRAIN else self.stretch)
        last = POINTS - ROOM - length
        first = stream(self.seed, part, START).uniform(FIRST, last, size)
        kinds = stream(self.seed, part, KIND).permutation(np.arange(size) % 2)
        spacing = TURN / POINTS
        places = spacing * (first[:, None] + np.arange(length))
        exact = np.where(kinds[:, None, None] == 0, clockwise(places), counter_clockwise(places))
        noisy = exact + self.noise * stream(self.seed, part, NOISE).standard_normal(exact.shape)
        seen = np.zeros((size, length), dtype=bool)
        seen[:, : self.times] = some_of(stream(self.seed, part, CHOICE), size, self.times, self.observed)
        both = torch.from_numpy(seen).unsqueeze(-1).expand(-1, -1, 2).contiguous()
        known = both if part == TRAIN else torch.ones_like(both)
        ys = torch.where(known, torch.from_numpy(noisy), 0)
        truth = torch.from_numpy(exact) if part == TEST else None
        return Series(torch.from_numpy(spacing * np.arange(length)), ys, both, known, truth=truth)


def counter_clockwise(t: Array) -> Array:
    """(..., 2) at times t (...,): an Archimedean spiral that opens."""
    radius = 0.3 * t
    return np.stack((radius * np.cos(t) + 5, radius * np.sin(t)), axis=-1)


def clockwise(t: Array) -> Array:
    """(..., 2) at times t (...,) below 6 pi + 1: a hyperbolic spiral, opening as its angle falls."""
    angle = TURN + 1 - t
    radius = 15 / angle
    return np.stack((radius * np.cos(angle) - 5, radius * np.sin(angle)), axis=-1)
