"""Grey images with a class, and the two ways to look at them: what mnist, digits and letters share."""

from __future__ import annotations

import abc
import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from node_runner.datasets.parts.streams import not_offered, stream
from node_runner.errors import ConfigError
from node_runner.views import DataSpec, Labelled, Points, Splits, View


VIEWS = (View.labelled, View.points)

TRAINING, TESTING = range(2)
"""Keys of the random streams that pick images from a pool."""


@dataclass(frozen=True)
class Images:
    """pixels: (N, H, W) uint8, y: (N,) int64 class indices."""

    pixels: Tensor
    y: Tensor

    def take(self, rows: Tensor) -> Images:
        """The images at `rows` (n,)."""
        return Images(self.pixels[rows], self.y[rows])


@dataclass(frozen=True)
class ImageData:
    """The parts of a data set of images, each view made when it is first asked for.

    Attributes:
        name: of the data set.
        levels: grey levels; pixels are integers 0..levels-1.
        num_classes: of the labels.
        classes: their names (empty: their numbers).
        parts: training, validation and test images.
    """

    name: str
    levels: int
    num_classes: int
    parts: Splits[Images]
    classes: tuple[str, ...] = ()

    def splits(self, view: View) -> Splits[Any]:
        """labelled: x float32 (N, 1, H, W) in [0, 1]. points: x uint8 (N, H * W), the integer levels."""
        if view is View.labelled:
            return self._labelled
        if view is View.points:
            return self._points
        raise not_offered(self.name, view, VIEWS)

    def spec(self, view: View) -> DataSpec:
        """Mean and deviation are scalars () over all training pixels, of the values in [0, 1].

        labelled: of pixel / (levels - 1), which is x. points: of (pixel + u) / levels with u uniform in
        [0, 1), which is what x becomes when it is dequantised.
        """
        _, height, width = self.parts.train.pixels.shape
        mean, variance = self._pixel_statistics
        if view is View.labelled:
            scale = self.levels - 1
            mean, std = mean / scale, variance.sqrt() / scale
            return DataSpec(
                self.name, view, (1, height, width), mean, std, num_classes=self.num_classes, classes=self.classes
            )
        if view is View.points:
            mean, std = (mean + 0.5) / self.levels, (variance + 1 / 12).sqrt() / self.levels
            image = (1, height, width)
            return DataSpec(
                self.name, view, (height * width,), mean, std,
                levels=self.levels, image=image, frequencies=self._frequencies, images=self._points.train.x,
            )  # fmt: skip
        raise not_offered(self.name, view, VIEWS)

    @functools.cached_property
    def _labelled(self) -> Splits[Labelled]:
        def view(images: Images) -> Labelled:
            return Labelled(images.pixels.unsqueeze(1).to(torch.float32) / (self.levels - 1), images.y)

        return self.parts.map(view)

    @functools.cached_property
    def _points(self) -> Splits[Points]:
        return self.parts.map(lambda images: Points(images.pixels.flatten(1)))

    @functools.cached_property
    def _frequencies(self) -> Tensor:
        """(P, levels) share of each level in each pixel of the training images."""
        pixels = self.parts.train.pixels.flatten(1)
        first = self.levels * torch.arange(pixels.shape[1])
        counts = torch.zeros(pixels.shape[1] * self.levels, dtype=torch.int64)
        for some in pixels.split(4000):  # as indices of 8 bytes
            counts += torch.bincount((first + some).flatten(), minlength=len(counts))
        return counts.view(-1, self.levels).to(torch.float64) / len(pixels)

    @functools.cached_property
    def _pixel_statistics(self) -> tuple[Tensor, Tensor]:
        # From the histogram: exact, and no float64 copy of 47 million pixels.
        share = self._frequencies.mean(dim=0)
        values = torch.arange(self.levels, dtype=torch.float64)
        mean = (share * values).sum()
        return mean, (share * (values - mean) ** 2).sum()


class ImageSet(abc.ABC):
    """A data set of images: it says what its images are, once they are asked for, and has both views of them."""

    views: ClassVar[tuple[View, ...]] = VIEWS

    def splits(self, view: View) -> Splits[Any]:
        """labelled: x float32 (N, 1, H, W) in [0, 1]. points: x uint8 (N, H * W), the integer levels."""
        return self._data.splits(view)

    def spec(self, view: View) -> DataSpec:
        """Statistics are scalars over the training pixels; see `ImageData.spec`."""
        return self._data.spec(view)

    @functools.cached_property
    @abc.abstractmethod
    def _data(self) -> ImageData:
        """The images, read or drawn."""


def hold_out(total: int, *, train: int | None, val: int, seed: int) -> tuple[Tensor, Tensor]:
    """Disjoint rows of a pool of `total` images for training (train,) and for validation (val,).

    One shuffle serves both, training images from its end and validation images from its beginning: with
    `train` given, another `val` leaves the training images as they are, and a larger `train` keeps them.

    Raises:
        ConfigError: more images asked for than there are.
    """
    room = total - val
    if room < 1:
        raise ConfigError(f"dataset.val={val} leaves no training images: there are {total} to share")
    if train is not None and train > room:
        raise ConfigError(f"dataset.train={train}: only {room} of {total} images are left beside dataset.val={val}")
    shuffled = torch.from_numpy(stream(seed, TRAINING).permutation(total))
    return shuffled.flip(0)[: room if train is None else train], shuffled[:val]


def choose_test(total: int, *, test: int | None, seed: int) -> Tensor:
    """Rows (test,) of a pool of `total` test images, at random; all of them in their order for None.

    At random because the order of a pool may matter: the first half of MNIST's is the easier one.

    Raises:
        ConfigError: more images asked for than there are.
    """
    if test is None:
        return torch.arange(total)
    if test > total:
        raise ConfigError(f"dataset.test={test}: there are only {total} test images")
    return torch.from_numpy(stream(seed, TESTING).permutation(total)[:test])
