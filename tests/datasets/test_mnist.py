import os
from pathlib import Path

import pytest
import torch

from node_runner.datasets.mnist import MNIST
from node_runner.datasets.parts.mnist_files import TEST_LABELS, TRAIN_LABELS
from node_runner.errors import ConfigError, DataError
from node_runner.views import View


def test_validation_images_are_held_out_of_the_training_images(miniature):
    parts = MNIST(root=str(miniature), val=8).splits(View.labelled)
    assert {name: tuple(part.x.shape) for name, part in parts.items()} == {
        "train": (22, 1, 28, 28),
        "val": (8, 1, 28, 28),
        "test": (12, 1, 28, 28),
    }
    # Training labels of the miniature count up in tens, so that together they come to three of each.
    labels = torch.cat((parts.train.y, parts.val.y))
    assert labels.bincount().tolist() == [3] * 10
    images = torch.cat((parts.train.x, parts.val.x, parts.test.x)).flatten(1)
    assert len(images.unique(dim=0)) == 42


def test_the_test_part_is_the_official_one_in_its_order(miniature):
    assert MNIST(root=str(miniature), val=5).splits(View.labelled).test.y.tolist() == [*range(10), 0, 1]


def test_images_and_labels_stay_together(miniature):
    labels = (miniature / "MNIST" / "raw" / TRAIN_LABELS).read_bytes()[8:]
    pixels = (miniature / "MNIST" / "raw" / TRAIN_LABELS.replace("labels-idx1", "images-idx3")).read_bytes()[16:]
    mnist = MNIST(root=str(miniature), val=5, train=6)
    for image, label in zip(mnist.splits(View.points).train.x, mnist.splits(View.labelled).train.y, strict=True):
        row = pixels.index(bytes(image.tolist())) // 784
        assert labels[row] == label


def test_points_are_bytes_and_know_their_image(miniature):
    mnist = MNIST(root=str(miniature), val=5)
    points = mnist.splits(View.points).train.x
    assert (points.dtype, points.shape) == (torch.uint8, (25, 784))
    spec = mnist.spec(View.points)
    assert (spec.shape, spec.levels, spec.image, spec.mean.shape, spec.mean.dtype) == (
        (784,),
        256,
        (1, 28, 28),
        (),
        torch.float64,
    )


def test_fewer_images_can_be_asked_for(miniature):
    parts = MNIST(root=str(miniature), train=7, val=3, test=4).splits(View.points)
    assert [len(part) for _, part in parts.items()] == [7, 3, 4]


def test_the_seed_decides_which_images_are_held_out(miniature):
    first, again, other = (MNIST(root=str(miniature), val=9, seed=seed).splits(View.points).val.x for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": 55_001}, r"dataset\.train=55001: only 55000 of 60000"),
        ({"val": 60_000}, r"dataset\.val=60000 leaves no training images"),
        ({"test": 10_001}, r"dataset\.test=10001: there are only 10000"),
    ],
    ids=["train", "val", "test"],
)
def test_more_images_than_there_are_are_refused_before_any_file_is_read(tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        MNIST(root=str(tmp_path), **settings)


def test_an_altered_file_is_never_read(miniature):
    file = miniature / "MNIST" / "raw" / TEST_LABELS
    file.write_bytes(bytes(file.stat().st_size))
    mnist = MNIST(root=str(miniature), val=5)
    for use in (mnist.check, lambda: mnist.splits(View.points), lambda: mnist.spec(View.labelled)):
        with pytest.raises(DataError, match=f"{TEST_LABELS} is not the official file"):
            use()


def test_a_cache_of_an_old_torchvision_is_not_read_in_place_of_the_files(miniature):
    processed = miniature / "MNIST" / "processed"
    processed.mkdir()
    for name in ("training.pt", "test.pt"):
        torch.save((torch.zeros(1, 28, 28, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64)), processed / name)
    assert len(MNIST(root=str(miniature), val=5).splits(View.points).train) == 25


@pytest.mark.parametrize(
    ("root", "variable", "expected"),
    [("given", "set", "given"), (None, "set", "set"), (None, "", "data"), (None, None, "data")],
    ids=["setting", "variable", "empty variable", "neither"],
)
def test_the_folder_is_the_setting_or_the_variable_or_data(tmp_path, monkeypatch, root, variable, expected):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NODE_RUNNER_DATA", raising=False)
    if variable is not None:
        monkeypatch.setenv("NODE_RUNNER_DATA", variable)
    assert MNIST(root=root).raw == tmp_path / expected / "MNIST" / "raw"


def test_the_official_data_are_what_everyone_knows():
    root = os.environ.get("NODE_RUNNER_DATA")
    if not root or not (Path(root) / "MNIST" / "raw" / TRAIN_LABELS).exists():
        pytest.skip("NODE_RUNNER_DATA names no folder with the official MNIST files")
    mnist = MNIST(train=55_000)
    mnist.check()
    parts = mnist.splits(View.points)
    assert [len(part) for _, part in parts.items()] == [55_000, 5_000, 10_000]
    pixels = parts.train.x.sum(dtype=torch.int64) + parts.val.x.sum(dtype=torch.int64)
    torch.testing.assert_close(pixels.item() / (60_000 * 784), 33.3184, rtol=0, atol=1e-4)
    spec = mnist.spec(View.labelled)
    torch.testing.assert_close(spec.mean.item(), 0.1307, rtol=0, atol=5e-4)
    torch.testing.assert_close(spec.std.item(), 0.3081, rtol=0, atol=5e-4)
    counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert mnist.splits(View.labelled).test.y.bincount().tolist() == counts
