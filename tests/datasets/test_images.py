import pytest
import torch

from node_runner.datasets.parts.images import ImageData, Images, choose_test, hold_out
from node_runner.errors import ConfigError
from node_runner.views import Splits, View


@pytest.fixture
def data() -> ImageData:
    """Images of 2 x 3 pixels with 5 grey levels: three to train on, two to validate and one to test on."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 5, (6, 2, 3), generator=generator, dtype=torch.uint8)
    images = Images(pixels, torch.tensor([0, 1, 2, 0, 1, 2]))
    train, val, test = (images.take(torch.tensor(rows)) for rows in ([0, 1, 2], [3, 4], [5]))
    return ImageData("small", levels=5, num_classes=3, parts=Splits(train, val, test))


def test_labelled_images_are_floats_from_zero_to_one_with_a_channel(data):
    for (_, part), (_, images) in zip(data.splits(View.labelled).items(), data.parts.items(), strict=True):
        assert part.x.dtype == torch.float32
        torch.testing.assert_close(part.x, images.pixels[:, None].float() / 4)
        assert torch.equal(part.y, images.y) and part.y.dtype == torch.int64


def test_points_are_the_integer_levels_of_flat_images(data):
    for (_, part), (_, images) in zip(data.splits(View.points).items(), data.parts.items(), strict=True):
        assert part.x.dtype == torch.uint8
        assert torch.equal(part.x, images.pixels.reshape(-1, 6))


def test_labelled_statistics_are_those_of_the_training_pixels(data):
    spec = data.spec(View.labelled)
    x = data.splits(View.labelled).train.x.double()
    torch.testing.assert_close(spec.mean, x.mean())
    torch.testing.assert_close(spec.std, x.std(correction=0))
    assert (spec.shape, spec.num_classes, spec.levels, spec.image) == ((1, 2, 3), 3, 0, ())


def test_point_statistics_are_those_of_dequantised_training_pixels(data):
    spec = data.spec(View.points)
    # (pixel + u) / levels over a fine grid of u in (0, 1).
    u = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    x = (data.splits(View.points).train.x.double().reshape(-1, 1) + u) / 5
    torch.testing.assert_close(spec.mean, x.mean())
    torch.testing.assert_close(spec.std, x.std(correction=0), rtol=1e-6, atol=0)
    assert (spec.shape, spec.num_classes, spec.levels, spec.image) == ((6,), 0, 5, (1, 2, 3))


@pytest.mark.parametrize("ask", ["splits", "spec"])
def test_images_are_no_trajectories(data, ask):
    with pytest.raises(ConfigError, match="small offers no view 'trajectories', only labelled and points"):
        getattr(data, ask)(View.trajectories)


@pytest.mark.parametrize("train", [None, 5], ids=["the rest", "some"])
def test_rows_to_train_and_to_validate_on_are_disjoint_and_of_the_asked_number(train):
    rows, held_out = hold_out(20, train=train, val=4, seed=0)
    assert (len(rows), len(held_out)) == (16 if train is None else train, 4)
    chosen = torch.cat((rows, held_out))
    assert len(chosen.unique()) == len(chosen)
    assert 0 <= chosen.min() and chosen.max() < 20


def test_rows_are_decided_by_the_seed():
    first, again, other = (torch.cat(hold_out(50, train=20, val=10, seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_another_number_to_validate_on_leaves_the_training_rows_as_they_are():
    assert torch.equal(hold_out(50, train=20, val=5, seed=0)[0], hold_out(50, train=20, val=30, seed=0)[0])


def test_a_larger_number_to_train_on_keeps_the_rows_of_the_smaller():
    assert torch.equal(hold_out(50, train=8, val=5, seed=0)[0], hold_out(50, train=20, val=5, seed=0)[0][:8])


@pytest.mark.parametrize(
    ("train", "val", "message"),
    [(16, 5, r"train=16: only 15 of 20 .* beside dataset\.val=5"), (None, 20, "val=20 leaves no training images")],
)
def test_more_images_than_there_are_cannot_be_shared(train, val, message):
    with pytest.raises(ConfigError, match=message):
        hold_out(20, train=train, val=val, seed=0)


def test_test_rows_are_all_in_order_or_some_at_random():
    assert choose_test(6, test=None, seed=0).tolist() == [0, 1, 2, 3, 4, 5]
    some = choose_test(1000, test=10, seed=0)
    assert len(some.unique()) == 10
    assert some.max() > 10
    assert not torch.equal(some, choose_test(1000, test=10, seed=1))


def test_more_test_images_than_there_are_are_refused():
    with pytest.raises(ConfigError, match=r"dataset\.test=7: there are only 6 test images"):
        choose_test(6, test=7, seed=0)


def test_the_share_of_each_level_in_each_pixel_is_that_of_the_training_images(data):
    frequencies = data.spec(View.points).frequencies
    x = data.splits(View.points).train.x
    expected = torch.stack([(x == level).double().mean(dim=0) for level in range(5)], dim=1)
    torch.testing.assert_close(frequencies, expected)
