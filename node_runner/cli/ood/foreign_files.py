"""Foreign points from files of the user's own: images for a flow of images, tables for any other."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from node_runner.datasets.parts.tables import SUFFIXES, Chosen, read_table
from node_runner.errors import DataError
from node_runner.views import DataSpec


PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff")

ARRAYS = (".npy", ".npz")


def looks_like_a_file(name: str) -> bool:
    """Whether `name` is a path: one that is there, or one that is written like one."""
    path = Path(name).expanduser()
    return path.exists() or path.suffix.lower() in (*SUFFIXES, *PICTURES, *ARRAYS) or "/" in name


def from_files(name: str, spec: DataSpec, count: int) -> tuple[Tensor, str]:
    """`count` points at the most (n, D) of a file or folder, and what they are in words.

    For a flow of images: a picture, a folder of pictures, or a .npy or .npz file whose first array has images (N, H, W)
    or (N, C, H, W), in uint8 or as floats from 0 to 1. They are averaged to the size of the run's images. For any other
    flow: a table with the columns of the run's data, of which rows with missing values are left out.

    Raises:
        DataError: there is no such file, it cannot be read, or it does not hold such points.
    """
    path = Path(name).expanduser()
    try:
        if not path.exists():
            raise DataError(f"{path}: no such file or folder; use one with images or points")
        return _pictured(path, spec, count) if spec.image else _tabled(path, spec, count)
    except DataError as error:
        raise DataError(f"--against {error}") from error


def _pictured(path: Path, spec: DataSpec, count: int) -> tuple[Tensor, str]:
    images, sizes = _images(path, spec, count)
    size = next(iter(sizes)) if len(sizes) == 1 else f"{len(sizes)} sizes"
    words = f"images of {path}, {size} averaged to {spec.image[1]} x {spec.image[2]}"
    return torch.stack(images).flatten(1), words


def _tabled(path: Path, spec: DataSpec, count: int) -> tuple[Tensor, str]:
    table = read_table(path, ",", lambda columns: _columns(path, spec, columns))
    x = torch.from_numpy(np.stack(list(table.numbers.values()), axis=-1))
    full = x[~x.isnan().any(dim=1)]
    if not len(full):
        raise DataError(f"{path}: no row has all of {', '.join(table.numbers)}; use a file that has such rows")
    left_out = f", {len(x) - len(full)} with missing values left out" if len(full) < len(x) else ""
    return full[:count], f"rows of {path}{left_out}"


def _columns(path: Path, spec: DataSpec, columns: Sequence[str]) -> Chosen:
    if set(spec.labels) <= set(columns) and spec.labels:
        return Chosen((), spec.labels)
    if len(columns) == spec.numel:
        return Chosen((), tuple(columns))
    expected = f"columns {', '.join(spec.labels)}" if spec.labels else f"{spec.numel} columns"
    raise DataError(f"{path}: expected {expected}, as dataset={spec.dataset} has, got {', '.join(columns)}; use a "
                    "table of points like those of the run")  # fmt: skip


def _images(path: Path, spec: DataSpec, count: int) -> tuple[list[Tensor], set[str]]:
    """Images (C, H, W) like those of the run, in its grey levels, and the sizes that they had."""
    channels, height, width = spec.image
    images, sizes = [], set()
    for share in _shares(path, channels, count):
        if len(share) != channels:
            raise DataError(f"{path}: expected images of {channels} channels, got {len(share)}; use such images")
        sizes.add(f"{share.shape[1]} x {share.shape[2]}")
        means = F.interpolate(share.unsqueeze(0), size=(height, width), mode="area")[0]
        images.append((means * (spec.levels - 1)).round().to(torch.uint8))
    if not images:
        raise DataError(f"{path}: holds no image; use a folder of {', '.join(PICTURES)} or an array of images")
    return images, sizes


def _shares(path: Path, channels: int, count: int) -> Iterable[Tensor]:
    """Images (C, H, W) float64 from 0 to 1, `count` at the most."""
    suffix = path.suffix.lower()
    if path.is_dir():
        pictures = sorted(file for file in path.iterdir() if file.suffix.lower() in PICTURES)
        return (_picture(file, channels) for file in pictures[:count])
    if suffix in PICTURES:
        return [_picture(path, channels)]
    if suffix in ARRAYS:
        return _array(path)[:count]
    raise DataError(f"{path}: expected images, in a folder or a file ending in {', '.join((*PICTURES, *ARRAYS))}")


def _picture(file: Path, channels: int) -> Tensor:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(f"{file}: is not an image that can be read ({error}); use another") from error
    return torch.from_numpy(pixels / 255).reshape(*pixels.shape[:2], -1).permute(2, 0, 1)


def _array(path: Path) -> Tensor:
    """(N, C, H, W) float64 from 0 to 1."""
    try:
        loaded = np.load(path, allow_pickle=False)
        array = loaded if isinstance(loaded, np.ndarray) else loaded[loaded.files[0]]
    except (OSError, ValueError, IndexError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: is not an array that can be read ({error}); save it anew") from error
    floats = array.dtype.kind == "f"
    if array.ndim not in (3, 4) or not (floats or array.dtype == np.uint8) or 0 in array.shape:
        raise DataError(f"{path}: expected images (N, H, W) or (N, C, H, W) in uint8 or as floats from 0 to 1, got "
                        f"{array.shape} of {array.dtype}; use such an array")  # fmt: skip
    share = torch.from_numpy(array.astype(np.float64) / (1 if floats else 255))
    if not bool(((share >= 0) & (share <= 1)).all()):
        raise DataError(f"{path}: expected floats from 0 to 1, got {share.min():g} to {share.max():g}; use "
                        "uint8 for grey levels to 255")  # fmt: skip
    return share if share.ndim == 4 else share.unsqueeze(1)
