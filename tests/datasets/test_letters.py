"""Letters: where they stand, how they are bent, and that they can be told apart."""

from __future__ import annotations

import pytest
import torch

from node_runner.datasets.letters import ALPHABET, FONTS, Letters, drawn
from node_runner.views import View


@pytest.mark.parametrize("font", FONTS)
def test_a_letter_of_any_font_fills_its_box_about_the_middle(font: str):
    grid = torch.arange(28, dtype=torch.float64)
    for letter in ALPHABET[::5]:
        image = drawn(letter, font, 0.2, -0.2).double()
        rows, columns = (image.sum(dim=1 - axis) for axis in (0, 1))
        lengths = [int(found.nonzero().max() - found.nonzero().min()) + 1 for found in (rows, columns)]
        assert 18 <= max(lengths) <= 20
        for found in (rows, columns):
            assert float(found @ grid / found.sum()) == pytest.approx(13.5, abs=1.5)


def test_a_turn_is_counter_clockwise_and_a_shear_leans():
    def slope(turn: float, shear: float) -> float:
        """How far to the right ink stands for each pixel further up."""
        image = drawn("I", "DejaVuSans", turn, shear).double()
        up, right = torch.meshgrid(-torch.arange(28.0).double(), torch.arange(28.0).double(), indexing="ij")
        up, right = (x - (x * image).sum() / image.sum() for x in (up, right))
        return float((image * up * right).sum() / (image * up * up).sum())

    assert slope(0, 0) == pytest.approx(0, abs=0.02)
    assert slope(0.25, 0) < -0.15
    assert slope(0, 0.3) > 0.15


def test_letters_are_equally_frequent_and_a_new_one_is_near_the_mean_of_its_kind():
    data = Letters(train=1300, val=26, test=260)
    splits = data.splits(View.labelled)
    assert splits.val.y.sort().values.tolist() == list(range(26))
    assert data.spec(View.labelled).num_classes == 26
    images, labels = splits.train.x.flatten(1), splits.train.y
    means = torch.stack([images[labels == letter].mean(dim=0) for letter in range(26)])
    nearest = torch.cdist(splits.test.x.flatten(1), means).argmin(dim=1)
    assert float((nearest == splits.test.y).double().mean()) > 0.6
