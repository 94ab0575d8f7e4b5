"""Densities in the plane: the usual toys of density estimation, scaled to about [-4, 4]^2 as FFJORD has them."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from node_runner.datasets import DATASETS
from node_runner.datasets.parts.shapes import SHAPES, entropy
from node_runner.datasets.parts.streams import TEST, TRAIN, VAL, mean_std, not_offered, stream
from node_runner.settings import Count, NonNegative, Seed
from node_runner.views import DataSpec, Labelled, Points, Splits, View


@DATASETS.register("two_moons", "density in the plane: two interleaved half circles", shape="two_moons")
@DATASETS.register("eight_gaussians", "density in the plane: eight Gaussians on a circle", shape="eight_gaussians")
@DATASETS.register("pinwheel", "density in the plane: five bent arms", shape="pinwheel")
@DATASETS.register("checkerboard", "density in the plane: every other square of a board", shape="checkerboard")
@DATASETS.register("rings", "density in the plane: four concentric rings", shape="rings")
@DATASETS.register("spirals", "density in the plane: two interleaved spirals", shape="spirals")
class PlaneDensity:
    """Independent samples of a density in the plane, with the piece of it that each comes from as its class.

    Views: points (N, 2), and labelled with 2 moons, 8 Gaussians, 5 arms, 8 squares, 4 rings or 2 spirals.

    Args:
        shape: which density.
        train, val, test: numbers of samples.
        noise: standard deviation of the Gaussian spread about the shape, in the units of the data, on
            both axes (pinwheel: across the arms). Null: that of FFJORD, which is 0.2 for two_moons and
            pinwheel, 0.354 for eight_gaussians, 0.08 for rings, 0.1 for spirals and 0 for checkerboard.
        seed: of the samples; the seed of the training does not touch them.

    Source: Grathwohl et al., FFJORD, 2019, the toy data of its code; see `shapes`.
    """

    views = (View.points, View.labelled)

    def __init__(
        self,
        *,
        shape: str,
        train: Count = 10_000,
        val: Count = 2_000,
        test: Count = 5_000,
        noise: NonNegative | None = None,
        seed: Seed = 0,
    ) -> None:
        self.shape = shape
        self.noise = SHAPES[shape].noise if noise is None else noise
        self.sizes = (train, val, test)
        self.seed = seed

    def check(self) -> None:
        """Nothing can be missing: the data come from a formula."""

    def splits(self, view: View) -> Splits[Any]:
        """points: x (N, 2). labelled: the same x, with its class."""
        if view is View.labelled:
            return self._labelled
        if view is View.points:
            return self._labelled.map(lambda part: Points(part.x))
        raise not_offered(self.shape, view, self.views)

    def spec(self, view: View) -> DataSpec:
        """Mean and deviation (2,) are those of the training samples."""
        if view not in self.views:
            raise not_offered(self.shape, view, self.views)
        mean, std = mean_std(self._labelled.train.x)
        num_classes = SHAPES[self.shape].num_classes if view is View.labelled else 0
        return DataSpec(
            self.shape, view, (2,), mean, std, num_classes=num_classes, labels=("x", "y"),
            entropy=self.entropy if view is View.points else None,
        )  # fmt: skip

    @functools.cached_property
    def entropy(self) -> float | None:
        """Of the true density in nats; None where it is not known."""
        return entropy(SHAPES[self.shape], self.noise)

    def log_prob(self, x: Tensor) -> Tensor | None:
        """True log-density (N,) at x (N, 2); None where the shape has no closed form, or no density (noise 0)."""
        log_prob = SHAPES[self.shape].log_prob
        return None if log_prob is None else log_prob(x, self.noise)

    @functools.cached_property
    def _labelled(self) -> Splits[Labelled]:
        train, val, test = map(self._sample, (TRAIN, VAL, TEST), self.sizes)
        return Splits(train, val, test)

    def _sample(self, part: int, size: int) -> Labelled:
        x, y = SHAPES[self.shape].sample(stream(self.seed, part), size, self.noise)
        return Labelled(torch.from_numpy(x), torch.from_numpy(y))
