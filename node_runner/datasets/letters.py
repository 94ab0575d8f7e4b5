"""Printed letters, drawn from the fonts that come with matplotlib: images that need no download and are no digits."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from node_runner.datasets import DATASETS
from node_runner.datasets.parts.images import ImageData, Images, ImageSet
from node_runner.datasets.parts.streams import TEST, TRAIN, VAL, stream
from node_runner.settings import Count, Seed
from node_runner.views import Splits


ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic",
    "DejaVuSansMono", "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "cmr10", "cmb10", "cmss10", "cmtt10",
)  # fmt: skip

SIDE, BOX, CANVAS = 28, 20, 80
"""Pixels of an image and of the box that holds the letter, as in MNIST, and of the paper that it is drawn on."""

TURN, SHEAR = 0.25, 0.3
"""Largest turn, in radians, and shear of a letter."""


@DATASETS.register("letters", "the alphabet in fourteen printed fonts, turned and sheared: 28x28 images, no download")
class Letters(ImageSet):
    """Capital letters A to Z, light on dark, each in a font, turn and shear of its own, placed as MNIST's digits are.

    Scaled so that the longer side takes 20 pixels, and moved so that the centre of mass is the image's. Each letter is
    equally frequent in a part. Beside digits they are what a flow has never seen.

    Views: labelled (N, 1, 28, 28) and points (N, 784).

    Args:
        train, val, test: numbers of images.
        seed: of fonts, turns and shears.
    """

    def __init__(self, *, train: Count = 5000, val: Count = 500, test: Count = 1000, seed: Seed = 0) -> None:
        self._sizes, self._seed = (train, val, test), seed

    def check(self) -> None:
        """Nothing can be missing: the fonts come with matplotlib."""

    @functools.cached_property
    def _data(self) -> ImageData:
        train, val, test = (self._part(key, size) for key, size in zip((TRAIN, VAL, TEST), self._sizes, strict=True))
        parts = Splits(train, val, test)
        return ImageData("letters", levels=256, num_classes=len(ALPHABET), parts=parts, classes=tuple(ALPHABET))

    def _part(self, part: int, size: int) -> Images:
        draws = stream(self._seed, part)
        classes = draws.permutation(np.arange(size) % len(ALPHABET))
        fonts = draws.integers(len(FONTS), size=size)
        bends = draws.uniform(-1, 1, (size, 2)) * (TURN, SHEAR)
        images = [drawn(ALPHABET[c], FONTS[f], *bend) for c, f, bend in zip(classes, fonts, bends, strict=True)]
        return Images(torch.stack(images), torch.from_numpy(classes))


def drawn(letter: str, font: str, turn: float, shear: float) -> Tensor:
    """A letter (28, 28) uint8; `turn` in radians counter-clockwise."""
    from PIL import Image

    ink = _ink(letter, font)
    # From a pixel of the result to one of the paper, both counted from the middle.
    cos, sin = np.cos(turn), np.sin(turn)
    bend = np.array([[cos, -sin], [sin, cos]]) @ np.array([[1, shear], [0, 1]])
    middle = np.full(2, CANVAS)
    shift = middle - bend @ middle
    matrix = (*bend[0], shift[0], *bend[1], shift[1])
    paper = Image.fromarray(ink).transform((2 * CANVAS, 2 * CANVAS), Image.Transform.AFFINE, matrix,
                                           Image.Resampling.BILINEAR)  # fmt: skip
    left, top, right, bottom = paper.getbbox() or (0, 0, 1, 1)
    scale = BOX / max(right - left, bottom - top)
    size = max(1, round(scale * (right - left))), max(1, round(scale * (bottom - top)))
    small = paper.resize(size, Image.Resampling.BOX, (left, top, right, bottom))
    return torch.from_numpy(_centred(np.asarray(small)))


@functools.cache
def _ink(letter: str, font: str) -> NDArray[np.uint8]:
    """The letter in the middle of a paper of twice its size."""
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf"
    paper = Image.new("L", (2 * CANVAS, 2 * CANVAS))
    face = ImageFont.truetype(str(path), CANVAS)
    ImageDraw.Draw(paper).text((CANVAS, CANVAS), letter, fill=255, font=face, anchor="mm")
    return np.asarray(paper)


def _centred(small: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image (28, 28) with its centre of mass in the middle, as far as the edges allow."""
    image = np.zeros((SIDE, SIDE), dtype=np.uint8)
    height, width = small.shape
    total = max(1.0, float(small.sum()))
    middle = np.array([small.sum(axis=1) @ np.arange(height), small.sum(axis=0) @ np.arange(width)]) / total
    top, left = np.clip(np.rint((SIDE - 1) / 2 - middle).astype(int), 0, (SIDE - height, SIDE - width))
    image[top : top + height, left : left + width] = small
    return image
