"""MNIST: the official files, checked before they are believed."""

from __future__ import annotations

import functools
import os
from pathlib import Path

from node_runner.datasets import DATASETS
from node_runner.datasets.parts.images import ImageData, Images, ImageSet, choose_test, hold_out
from node_runner.datasets.parts.mnist_files import FILES, TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS, provide
from node_runner.settings import Count, Seed
from node_runner.views import Splits


HEADER = 8
"""Bytes before the labels in a label file, which has one byte a label."""


@DATASETS.register("mnist", "28x28 handwritten digits: 60000 training and 10000 test images, downloaded if missing")
class MNIST(ImageSet):
    """Handwritten digits of 28 x 28 pixels with 256 grey levels, in the official split.

    Views: labelled (N, 1, 28, 28) and points (N, 784).

    Args:
        root: folder that holds MNIST/raw with the four files (null: the environment variable
            NODE_RUNNER_DATA, and ./data without it).
        train: training images (null: all 60000 but those held out for validation).
        val: validation images, held out of the official training images.
        test: test images, a random choice of the official 10000 (null: all of them).
        seed: of the choice of images.

    Source: LeCun, Bottou, Bengio, Haffner, Gradient-based learning applied to document recognition, 1998.
    """

    def __init__(
        self,
        *,
        root: str | None = None,
        train: Count | None = None,
        val: Count = 5000,
        test: Count | None = None,
        seed: Seed = 0,
    ) -> None:
        folder = Path(root or os.environ.get("NODE_RUNNER_DATA") or "data").expanduser().absolute()
        self.raw = folder / "MNIST" / "raw"
        self._train, self._val = hold_out(FILES[TRAIN_LABELS].size - HEADER, train=train, val=val, seed=seed)
        self._test = choose_test(FILES[TEST_LABELS].size - HEADER, test=test, seed=seed)

    def check(self) -> None:
        """See that the files are there and the official ones, and download them if they are missing.

        Raises:
            DataError: a file is altered, or missing and cannot be downloaded.
        """
        provide(self.raw)

    @functools.cached_property
    def _data(self) -> ImageData:
        # torchvision's class would prefer a processed/training.pt of an old version, unchecked, to these files.
        from torchvision.datasets.mnist import read_image_file, read_label_file  # here: it takes seconds

        self.check()
        training = Images(read_image_file(str(self.raw / TRAIN_IMAGES)), read_label_file(str(self.raw / TRAIN_LABELS)))
        testing = Images(read_image_file(str(self.raw / TEST_IMAGES)), read_label_file(str(self.raw / TEST_LABELS)))
        parts = Splits(training.take(self._train), training.take(self._val), testing.take(self._test))
        return ImageData("mnist", levels=256, num_classes=10, parts=parts)
