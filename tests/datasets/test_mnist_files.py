import shutil
import socket
from pathlib import Path

import pytest
import torchvision.datasets

from node_runner.datasets.parts.mnist_files import FILES, TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, provide
from node_runner.errors import DataError


class Mirror:
    """Stands in for torchvision's MNIST class: "downloads" from a folder, or fails half way."""

    def __init__(self, source: Path | None, broken: str | None = None) -> None:
        self.source = source
        self.broken = broken
        self.roots: list[Path] = []
        self.timeout: float | None = None

    def __call__(self, root: str, download: bool) -> None:
        assert download
        self.roots.append(Path(root))
        self.timeout = socket.getdefaulttimeout()
        raw = Path(root) / "MNIST" / "raw"
        raw.mkdir(parents=True)
        if self.source is None:
            (raw / f"{TRAIN_IMAGES}.gz").write_bytes(b"half of")
            raise RuntimeError("Error downloading train-images-idx3-ubyte.gz:\nTried a mirror, got:\nno network\n")
        for name in FILES:
            shutil.copy(self.source / name, raw / name)
        if self.broken:
            (raw / self.broken).write_bytes(b"sign in to use this network")


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Mirror:
    mirror = Mirror(source=None)
    monkeypatch.setattr(torchvision.datasets, "MNIST", mirror)
    return mirror


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_the_official_files_pass_and_nothing_is_downloaded(miniature, mirror):
    before = contents(miniature)
    provide(miniature / "MNIST" / "raw")
    assert mirror.roots == []
    assert contents(miniature) == before


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_refused_with_both_sizes_and_the_fix(miniature, mirror, name):
    file = miniature / "MNIST" / "raw" / name
    file.write_bytes(file.read_bytes()[:-5])
    size = FILES[name].size
    with pytest.raises(DataError) as error:
        provide(file.parent)
    assert str(error.value) == (
        f"dataset=mnist: {file} is not the official file: expected {size} bytes, found {size - 5}. Delete it and run "
        "again with a network to download it, or put the official one, unpacked, in its place"
    )
    assert mirror.roots == []


@pytest.mark.parametrize("name", FILES)
def test_an_altered_file_of_the_right_size_is_refused_with_both_sums(miniature, name):
    file = miniature / "MNIST" / "raw" / name
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(
        DataError, match=rf"{name} is not .* expected the MD5 sum {FILES[name].md5}, found [0-9a-f]{{32}}"
    ):
        provide(file.parent)


def test_an_altered_file_is_named_before_missing_ones_are_downloaded(miniature, mirror):
    raw = miniature / "MNIST" / "raw"
    (raw / TRAIN_IMAGES).unlink()
    (raw / TEST_LABELS).write_bytes(b"")
    with pytest.raises(DataError, match=rf"{TEST_LABELS} is not the official file"):
        provide(raw)
    assert mirror.roots == []


def test_missing_files_without_a_network_are_explained_in_one_line_and_leave_nothing_behind(tmp_path, mirror):
    raw = tmp_path / "deep" / "MNIST" / "raw"
    with pytest.raises(DataError) as error:
        provide(raw)
    message = str(error.value)
    assert "\n" not in message
    for part in (*FILES, str(raw), "NODE_RUNNER_DATA", "dataset=digits needs no download", "got: no network"):
        assert part in message
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_there_stays_when_a_download_fails(tmp_path, mirror):
    (tmp_path / "MNIST").mkdir()
    with pytest.raises(DataError, match="no network"):
        provide(tmp_path / "MNIST" / "raw")
    assert list(tmp_path.rglob("*")) == [tmp_path / "MNIST"]


def test_a_mirror_that_sends_something_else_leaves_nothing_behind(miniature, tmp_path_factory, mirror):
    mirror.source, mirror.broken = miniature / "MNIST" / "raw", TEST_IMAGES
    root = tmp_path_factory.mktemp("empty")
    with pytest.raises(DataError, match=f"{TEST_IMAGES} from the network is not the official file: expected"):
        provide(root / "MNIST" / "raw")
    assert list(root.iterdir()) == []


def test_a_download_brings_only_what_is_missing(miniature, tmp_path_factory, mirror):
    source = miniature / "MNIST" / "raw"
    mirror.source = source
    raw = tmp_path_factory.mktemp("partial") / "MNIST" / "raw"
    raw.mkdir(parents=True)
    shutil.copy(source / TRAIN_IMAGES, raw / TRAIN_IMAGES)
    kept = (raw / TRAIN_IMAGES).stat().st_ino
    time_before = socket.getdefaulttimeout()
    provide(raw)
    assert contents(raw) == contents(source)
    assert (raw / TRAIN_IMAGES).stat().st_ino == kept
    assert [path.name for path in raw.parent.iterdir()] == ["raw"]
    assert mirror.timeout is not None and socket.getdefaulttimeout() == time_before


def test_a_folder_that_cannot_be_made_is_explained_the_same_way(tmp_path, mirror):
    (tmp_path / "MNIST").write_text("a file where a folder should be")
    with pytest.raises(DataError, match="dataset=digits needs no download"):
        provide(tmp_path / "MNIST" / "raw")
    assert mirror.roots == []
