"""The four files of MNIST: are they there, are they the official ones, and if not, fetch them."""

from __future__ import annotations

import hashlib
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from node_runner.errors import DataError


TRAIN_IMAGES = "train-images-idx3-ubyte"
TRAIN_LABELS = "train-labels-idx1-ubyte"
TEST_IMAGES = "t10k-images-idx3-ubyte"
TEST_LABELS = "t10k-labels-idx1-ubyte"


class Official(NamedTuple):
    """Size in bytes and MD5 sum of an official file, unpacked."""

    size: int
    md5: str


FILES = {
    TRAIN_IMAGES: Official(47_040_016, "6bbc9ace898e44ae57da46a324031adb"),
    TRAIN_LABELS: Official(60_008, "a25bea736e30d166cdddb491f175f624"),
    TEST_IMAGES: Official(7_840_016, "2646ac647ad5339dbf082846283269ea"),
    TEST_LABELS: Official(10_008, "27ae3e4e09519cfbb04c329615203637"),
}

SILENCE_S = 30.0
"""Seconds without a byte after which a download is given up; by itself it would wait for ever."""


def provide(folder: Path) -> None:
    """See to it that `folder` holds the four official files.

    Every file that is there is checked, each time: torchvision itself takes any file of the right name.
    Files that are missing are downloaded.

    Raises:
        DataError: a file is altered, or missing and cannot be downloaded.
    """
    missing = [name for name in FILES if not (folder / name).exists()]
    for name in FILES:
        if name not in missing and (wrong := difference(folder / name)):
            raise DataError(
                f"dataset=mnist: {folder / name} is not the official file: {wrong}. Delete it and run again "
                "with a network to download it, or put the official one, unpacked, in its place"
            )
    if missing:
        download(folder, missing)


def difference(file: Path) -> str | None:
    """How a file differs from the official one of its name, in size or MD5 sum; None if it does not."""
    official = FILES[file.name]
    size = file.stat().st_size
    if size != official.size:
        return f"expected {official.size} bytes, found {size}"
    with file.open("rb") as content:
        md5 = hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if md5 != official.md5:
        return f"expected the MD5 sum {official.md5}, found {md5}"
    return None


def download(folder: Path, missing: list[str]) -> None:
    """Put the `missing` files into `folder`, whole and checked, or not at all.

    They are fetched into a temporary folder beside it and moved when all are good, so that an
    interrupted download leaves nothing behind that looks like data, and parallel runs do not meet. Folders
    that were made for a download that failed are taken away again.

    Raises:
        DataError: no network, no permission to write, or a mirror that sent something else.
    """
    from torchvision.datasets import MNIST  # here, because it takes seconds

    try:
        with (
            _made(folder),
            tempfile.TemporaryDirectory(prefix="download-", dir=folder.parent) as temporary,
            _timeout(SILENCE_S),
        ):
            MNIST(temporary, download=True)
            fetched = Path(temporary) / "MNIST" / "raw"
            for name in missing:
                if wrong := difference(fetched / name):
                    raise DataError(f"{name} from the network is not the official file: {wrong}")
            for name in missing:
                os.replace(fetched / name, folder / name)
    except (RuntimeError, OSError, DataError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"dataset=mnist: {_listed(missing)} not in {folder}, and could not be downloaded. Put what is missing "
            "there, unpacked, or set NODE_RUNNER_DATA to a folder that holds the four files in MNIST/raw; "
            f"dataset=digits needs no download. (The download failed: {reason})"
        ) from error


def _listed(missing: list[str]) -> str:
    """The files that are missing, with their verb, as the beginning of a sentence."""
    if len(missing) == 1:
        return f"{missing[0]} is"
    return f"{'the four files ' if len(missing) == len(FILES) else ''}{', '.join(missing[:-1])} and {missing[-1]} are"


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make a folder and those above it, and take away what was made if the block fails."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for place in missing:
            with suppress(OSError):  # it had not been made yet, or a parallel run has put something there
                place.rmdir()
        raise


@contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
