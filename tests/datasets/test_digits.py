import pytest
import torch
from sklearn.datasets import load_digits

from node_runner.datasets.digits import TOTAL, Digits
from node_runner.errors import ConfigError
from node_runner.views import View


def test_all_images_are_in_exactly_one_part():
    parts = dict(Digits().splits(View.points).items())
    assert {name: len(part) for name, part in parts.items()} == {"train": 1247, "val": 250, "test": 300}
    ours = torch.cat([part.x for part in parts.values()])
    official = torch.from_numpy(load_digits().data).to(torch.uint8)
    assert len(ours) == TOTAL == len(official)
    # As multisets of rows: sort both.
    assert sorted(ours.tolist()) == sorted(official.tolist())


def test_each_image_keeps_its_own_label():
    label_of = {
        tuple(image.flatten().tolist()): label for image, label in zip(*load_digits(return_X_y=True), strict=True)
    }
    part = Digits(train=50).splits(View.labelled).train
    assert len(part) == 50
    assert [label_of[tuple((image * 16).round().flatten().tolist())] for image in part.x] == part.y.tolist()


def test_shapes_and_values_are_those_promised():
    digits = Digits()
    labelled, points = digits.splits(View.labelled).val, digits.splits(View.points).val
    assert labelled.x.shape == (250, 1, 8, 8)
    assert (labelled.x.min(), labelled.x.max()) == (0.0, 1.0)
    assert points.x.shape == (250, 64)
    assert (points.x.dtype, points.x.max()) == (torch.uint8, 16)
    assert digits.spec(View.points).levels == 17
    assert digits.spec(View.points).image == digits.spec(View.labelled).shape == (1, 8, 8)
    assert digits.spec(View.labelled).num_classes == 10 == len(labelled.y.unique())


def test_the_seed_decides_the_test_images():
    first, again, other = (Digits(seed=seed).splits(View.points).test.x for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_another_number_to_validate_on_leaves_training_and_test_images_as_they_are():
    before, after = (Digits(train=100, val=val).splits(View.points) for val in (10, 200))
    assert torch.equal(before.train.x, after.train.x)
    assert torch.equal(before.test.x, after.test.x)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"val": 1000, "test": 797}, "leave none of 1797 images for training"),
        ({"train": 1300}, "train=1300: only 1247"),
        ({"test": 1798}, "there are only 1797 test images|leave none of 1797"),
    ],
    ids=["no training", "too much training", "too many"],
)
def test_more_images_than_there_are_are_refused_at_once(settings, message):
    with pytest.raises(ConfigError, match=message):
        Digits(**settings)
