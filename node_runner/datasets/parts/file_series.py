"""Irregular series from a file of the user's own: every value that is there, at the times of each series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from node_runner.datasets.parts.grid import Grid
from node_runner.datasets.parts.irregular import hide, seen_until
from node_runner.datasets.parts.streams import TEST, VAL, stream
from node_runner.datasets.parts.tables import Table
from node_runner.views import Series, Splits, View


Rows = NDArray[np.int64]


@dataclass(frozen=True)
class FileSeries:
    """The series of a table.

    Attributes:
        grid: of their rows.
        y: (rows of the table, D), NaN where missing.
        end: how many times of the grid training knows.
        hidden: share of the times up to there at which a series of validation and test is not seen.
        seed: of these times.
        labels: (N,) class of each series (None: there are no classes).
    """

    grid: Grid
    y: NDArray[np.float64]
    end: int
    hidden: float
    seed: int
    labels: Rows | None = None

    def splits(self, view: View, train: Rows, val: Rows, test: Rows) -> Splits[Series]:
        """Parts whose training knows nothing after the end; what validation and test may see depends on the view."""
        until = float(self.grid.ts[self.end - 1])
        if view is View.paths:
            return Splits(self._early(train), self._early(val), self._early(test))
        if view is View.processes:
            return Splits(self._early(train), self._early(val), seen_until(self._whole(test), until))

        def later(rows: Rows, key: int) -> Series:
            return hide(seen_until(self._whole(rows), until), self.hidden, stream(self.seed, key))

        return Splits(self._early(train), later(val, VAL), later(test, TEST))

    def _early(self, rows: Rows) -> Series:
        return self._part(rows, self.end)

    def _whole(self, rows: Rows) -> Series:
        return self._part(rows, len(self.grid.ts))

    def _part(self, rows: Rows, end: int) -> Series:
        ts, known, ys = (torch.from_numpy(x) for x in self.grid.values(self.y, rows, end))
        labels = None if self.labels is None else torch.from_numpy(self.labels[rows])
        return Series(ts, ys, known, known, labels)


def classes_of(grid: Grid, table: Table, label: str, of_row: Rows, classes: Sequence[str]) -> Rows:
    """(N,) class of each series, which all its rows must name.

    Args:
        grid: of the rows.
        table: that they are of.
        label: column of classes.
        of_row: (rows of the table,) the class of each.
        classes: by name.

    Raises:
        DataError: a row of another class than the first of its series.
    """
    first = np.flatnonzero(np.diff(grid.owner, prepend=-1))
    found: Rows = of_row[grid.rows[first]]
    wrong = of_row[grid.rows] != found[grid.owner]
    if wrong.any():
        row, series = int(grid.rows[wrong].min()), int(grid.owner[wrong][grid.rows[wrong].argmin()])
        here, first_one = (classes[number] for number in (of_row[row], found[series]))
        raise table.refuse(row, label, f"class '{here}' of series '{grid.names[series]}', whose first is "
                           f"'{first_one}'; use one class a series")  # fmt: skip
    return found
