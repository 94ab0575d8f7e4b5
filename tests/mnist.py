"""Small files that pass for MNIST's."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from node_runner.datasets.parts import mnist_files


def write_mnist(raw: Path, monkeypatch: pytest.MonkeyPatch, *, training: int, testing: int) -> None:
    """Four files of so many images of noise, which are the official ones as long as the test runs."""
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for images, labels, count in (
        (mnist_files.TRAIN_IMAGES, mnist_files.TRAIN_LABELS, training),
        (mnist_files.TEST_IMAGES, mnist_files.TEST_LABELS, testing),
    ):
        write_idx(raw / images, rng.integers(0, 256, (count, 28, 28)))
        write_idx(raw / labels, np.arange(count) % 10)
    for name in mnist_files.FILES:
        content = (raw / name).read_bytes()
        official = mnist_files.Official(len(content), hashlib.md5(content, usedforsecurity=False).hexdigest())
        monkeypatch.setitem(mnist_files.FILES, name, official)


def write_idx(file: Path, values: np.ndarray) -> None:
    """Write bytes in the format of MNIST: two zeros, 8 for bytes, the number of axes, their lengths, the values."""
    lengths = np.array(values.shape, dtype=">i4").tobytes()
    file.write_bytes(bytes([0, 0, 8, values.ndim]) + lengths + values.astype(np.uint8).tobytes())
