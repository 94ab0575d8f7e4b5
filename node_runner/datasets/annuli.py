"""A ball inside a shell: two classes that no ODE without further dimensions can part by a plane."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from node_runner.datasets import DATASETS
from node_runner.datasets.parts.drawn import Drawn
from node_runner.datasets.parts.streams import mean_std, stream
from node_runner.errors import ConfigError
from node_runner.settings import Count, Positive
from node_runner.views import DataSpec, Labelled, View


@DATASETS.register("annuli", "a disc inside a ring, or a ball inside a shell: classes that only extra dimensions part")
@dataclass(kw_only=True)
class Annuli(Drawn[Labelled]):
    """Class 0 uniform on |x| <= inner, class 1 on gap_end <= |x| <= outer, equally likely.

    A flow of the same dimension is a homeomorphism: what it makes of the ring still surrounds what it makes of
    the disc, so that a linear head cannot tell them apart everywhere.

    Args:
        dim: dimensions: 2 for a disc and a ring, 3 for a ball and a shell.
        inner: radius of the ball.
        gap_end, outer: radii of the shell.
        train, val, test: numbers of examples.
        seed: of the examples.

    Raises:
        ConfigError: the radii do not increase.

    Source: Dupont, Doucet, Teh, Augmented Neural ODEs (2019), section 3.
    """

    name = "annuli"
    views = (View.labelled,)

    dim: Count = 2
    inner: Positive = 0.5
    gap_end: Positive = 1.0
    outer: Positive = 1.5
    train: Count = 3000
    val: Count = 1000
    test: Count = 2000

    def __post_init__(self) -> None:
        if not self.inner <= self.gap_end < self.outer:
            raise ConfigError(
                f"dataset=annuli: expected inner <= gap_end < outer, got {self.inner:g}, {self.gap_end:g}, "
                f"{self.outer:g}; use radii that increase, such as 0.5, 1, 1.5"
            )

    def spec(self, view: View) -> DataSpec:
        """Mean and deviation (dim,) are those of the training examples."""
        mean, std = mean_std(self.splits(view).train.x)
        labels = tuple(f"x{axis + 1}" for axis in range(self.dim))
        return DataSpec(self.name, view, (self.dim,), mean, std, num_classes=2, labels=labels)

    def _part(self, part: int, size: int) -> Labelled:
        """Examples x (N, dim)."""
        generator = stream(self.seed, part)
        y = generator.integers(2, size=size)
        radii = np.array([[0.0, self.inner], [self.gap_end, self.outer]])
        low, high = radii[y].T ** self.dim
        # The volume within a radius grows as its power: uniform in that, so uniform in space.
        radius = generator.uniform(low, high) ** (1 / self.dim)
        direction = generator.standard_normal((size, self.dim))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        return Labelled(torch.from_numpy(radius[:, None] * direction), torch.from_numpy(y))
