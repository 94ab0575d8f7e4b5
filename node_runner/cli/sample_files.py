"""The files that `node-run sample` writes its numbers to."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


Array = NDArray[Any]


def write_csv(file: Path, header: Sequence[str], table: Array) -> None:
    """Write numbers (N, columns) under a header, in a folder that is made if need be."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(header)
        writer.writerows([f"{value:.9g}" for value in row] for row in table)


def write_npz(file: Path, **arrays: Any) -> None:
    """Write named arrays, in a folder that is made if need be."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as out:
        np.savez_compressed(out, **arrays)


def one_row_a_time(ts: Array, ys: Array) -> Array:
    """Series (N, T, D) at ts (T,) as a table (N T, 2 + D): which series, time, state."""
    number = np.repeat(np.arange(len(ys)), len(ts))
    return np.column_stack((number, np.tile(ts, len(ys)), ys.reshape(-1, ys.shape[2])))


def numpy(values: Tensor) -> Array:
    """A tensor as an array of float64."""
    return values.double().cpu().numpy()
