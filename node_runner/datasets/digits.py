"""scikit-learn's handwritten digits: small images that need no download."""

from __future__ import annotations

import functools

import torch

from node_runner.datasets import DATASETS
from node_runner.datasets.parts.images import ImageData, Images, ImageSet, choose_test, hold_out
from node_runner.errors import ConfigError
from node_runner.settings import Count, Seed
from node_runner.views import Splits


TOTAL = 1797
"""Images in the data set."""


@DATASETS.register("digits", "scikit-learn's 8x8 handwritten digits: 1797 images, no download")
class Digits(ImageSet):
    """1797 handwritten digits of 8 x 8 pixels with 17 grey levels, 0 to 16, bundled with scikit-learn.

    Views: labelled (N, 1, 8, 8) and points (N, 64).

    Args:
        train: training images (null: all that are left beside validation and test).
        val: validation images.
        test: test images; there is no official test set, so they are drawn first.
        seed: of the draw of validation and test images.

    Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning
    Repository, 1998 (its test set).
    """

    def __init__(self, *, train: Count | None = None, val: Count = 250, test: Count = 300, seed: Seed = 0) -> None:
        if test + val >= TOTAL:
            raise ConfigError(f"dataset.val={val} and dataset.test={test} leave none of {TOTAL} images for training")
        self._test = choose_test(TOTAL, test=test, seed=seed)
        self._train, self._val = hold_out(TOTAL - test, train=train, val=val, seed=seed)

    def check(self) -> None:
        """Nothing can be missing: the images come with scikit-learn."""

    @functools.cached_property
    def _data(self) -> ImageData:
        from sklearn.datasets import load_digits  # here, because it takes a second

        x, y = load_digits(return_X_y=True)  # (1797, 64) and (1797,)
        images = Images(
            torch.from_numpy(x).to(torch.uint8).unflatten(1, (8, 8)),
            torch.from_numpy(y).to(torch.int64),
        )
        left = torch.ones(TOTAL, dtype=torch.bool)
        left[self._test] = False
        pool = images.take(left.nonzero().squeeze(1))
        parts = Splits(pool.take(self._train), pool.take(self._val), images.take(self._test))
        return ImageData("digits", levels=17, num_classes=10, parts=parts)
