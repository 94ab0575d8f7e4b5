"""The files that `node-run sample` writes its numbers to."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node_runner.cli.arrays import Array


def write_csv(file: Path, header: Sequence[str], table: NDArray[Any]) -> None:
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
    """Series (N, T, D) at ts (T,) or (N, T) as a table (rows, 2 + D): which series, time, state.

    The padding of series that have times of their own, where the last one is repeated, is left out.
    """
    times = np.broadcast_to(ts, ys.shape[:2])
    kept = np.diff(times, axis=1, prepend=times[:, :1] - 1) != 0
    return np.column_stack((np.nonzero(kept)[0], times[kept], ys[kept]))
