"""Data of the user's own, from a CSV, NPZ or Parquet file."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from node_runner.datasets import DATASETS
from node_runner.datasets.grid import Grid, make_grid
from node_runner.datasets.parts import TRAIN, mean_std, not_offered, stream
from node_runner.datasets.tables import Chosen, Table, find_column, read_table
from node_runner.errors import ConfigError
from node_runner.settings import Above, Between, CountOrZero, Positive
from node_runner.views import DataSpec, Labelled, Points, Splits, Trajectories, View


log = logging.getLogger("node_runner")


@DATASETS.register("file", "your own data: a CSV, NPZ or Parquet file, one row an observation")
class File:
    """Trajectories, labelled examples or points, from one row an observation.

    With a `time` the rows are trajectories, and their states are offered as points too. Rows of different series
    may alternate, but those of one must be in the order of time. Times may be irregular and differ from series to
    series: the grid has all of them, or multiples of `step`. A state counts as observed where all its values are
    there; a series begins at its first such row, since a model starts from it. With a `label` the rows are labelled
    examples, and with `time=null` points; rows with missing values are then left out. Whatever is left out is
    counted in the log; a cell that is wrong (no number, infinite, times that do not increase, a missing id) ends
    the run with its line.

    A CSV file is text in UTF-8 whose first line names the columns. Missing values are empty cells, NA, NaN, null
    or none. An NPZ file has an array (n,) for each column, a Parquet file needs the extra `parquet`.

    Args:
        path: of the file: .csv, .npz or .parquet.
        id: column that tells series apart (null: the rows are one series, which `cut` divides).
        time: column of times (null: the rows have none, and are points).
        values: columns of the state (null: all but the others that are named here).
        label: column of classes, words or numbers (null: none).
        delimiter: what stands between the cells of a CSV file.
        relative: count the times of each series from its first observation. If not, all series must begin at the
            same time, as those of a system that is driven from outside do.
        step: spacing of the grid of times, to which times are rounded (null: none are).
        cut: length in time of the pieces that series are cut into, each then a series of its own (null: whole).
        until: time at which training, validation and test trajectories end. The test series to their ends are then
            the long-horizon test "test_long" (null: there is none).
        val_share, test_share: parts of the series, or of the examples, for validation and test.
        seed: of the choice of these parts.
    """

    views: tuple[View, ...] = (View.trajectories, View.points)

    def __init__(
        self,
        *,
        path: str | None = None,
        id: str | None = "id",
        time: str | None = "t",
        values: list[str] | None = None,
        label: str | None = None,
        delimiter: str = ",",
        relative: bool = True,
        step: Positive | None = None,
        cut: Positive | None = None,
        until: Positive | None = None,
        val_share: Annotated[float, Above(0), Between(0, 0.9)] = 0.2,
        test_share: Annotated[float, Above(0), Between(0, 0.9)] = 0.2,
        seed: CountOrZero = 0,
    ) -> None:
        if val_share + test_share >= 1:
            raise ConfigError(f"dataset.val_share={val_share:g} and dataset.test_share={test_share:g} leave nothing to "
                              "train on; use smaller ones")  # fmt: skip
        if len(delimiter) != 1:
            raise ConfigError(f"dataset.delimiter: expected one character, got '{delimiter}'; use dataset.delimiter=,")
        if label is not None:
            self.views = (View.labelled, View.points)
        elif time is None:
            self.views = (View.points,)
        self.path = None if path is None else Path(path).expanduser().absolute()
        self.id, self.time, self.values, self.label = id, time, values, label
        self.delimiter, self.relative, self.step, self.cut, self.until = delimiter, relative, step, cut, until
        self.shares, self.seed = (val_share, test_share), seed

    def check(self) -> None:
        """Read the file and make all parts, so that whatever is wrong with it is refused before any work."""
        self.splits(self.views[0])

    def splits(self, view: View) -> Splits[Any]:
        """Trajectories (N, T, D), labelled examples (N, D) or points (N, D)."""
        if view not in self.views:
            raise not_offered("file", view, self.views)
        if View.trajectories in self.views:
            return self._trajectories if view is View.trajectories else self._states
        if view is View.labelled:
            return self._examples
        parts = self._examples
        return Splits(Points(parts.train.x), Points(parts.val.x), Points(parts.test.x))

    def spec(self, view: View) -> DataSpec:
        """Mean and deviation are those of the training observations."""
        splits = self.splits(view)
        part = splits.train if view is not View.trajectories else self._states.train
        mean, std = mean_std(part.x)
        classes = len(self._classes) if view is View.labelled else 0
        names = tuple(self._values)
        return DataSpec("file", view, (len(names),), mean, std, num_classes=classes, labels=names)

    # --- what is read ------------------------------------------------------------------------------

    @functools.cached_property
    def _table(self) -> Table:
        if self.path is None:
            raise ConfigError("dataset=file: no file is given; use dataset.path=FILE")
        return read_table(self.path, self.delimiter, self._choose)

    def _choose(self, columns: Sequence[str]) -> Chosen:
        assert self.path is not None
        trajectories = View.trajectories in self.views
        named = {"id": self.id, "time": self.time} if trajectories else {"label": self.label}
        found = {
            setting: find_column(self.path, setting, name, columns)
            for setting, name in named.items()
            if name is not None
        }
        if self.values is None:
            self._values = [name for name in columns if name not in (self.id, self.time, self.label)]
        else:
            self._values = [find_column(self.path, "values", name, columns) for name in self.values]
        taken = [name for name in self._values if name in found.values()]
        if taken or not self._values or len(set(self._values)) != len(self._values):
            raise ConfigError(f"dataset.values: expected different columns beside {', '.join(found.values())}, got "
                              f"{', '.join(self._values) or 'none'}; use some of {', '.join(columns)}")  # fmt: skip
        words = [found[setting] for setting in ("id", "label") if setting in found]
        times = [found["time"]] if "time" in found else []
        return Chosen(tuple(words), (*times, *self._values))

    # --- trajectories ------------------------------------------------------------------------------

    @functools.cached_property
    def _trajectories(self) -> Splits[Trajectories]:
        table = self._table
        assert self.time is not None
        grid = make_grid(table, series=self.id, time=self.time, values=self._values, relative=self.relative,
                         step=self.step, cut=self.cut)  # fmt: skip
        train, val, test = self._choice(len(grid.names), "series", "dataset.cut or dataset.id")
        end = len(grid.ts) if self.until is None else int((grid.ts <= self.until * (1 + 1e-9)).sum())
        if end < 2 or (self.until is not None and end == len(grid.ts)):
            raise ConfigError(f"dataset.until={self.until:g}: expected a time within the data's, which are from "
                              f"{grid.ts[0]:g} to {grid.ts[-1]:g}; use one between, or null")  # fmt: skip
        log.info("%s", self._in_words(grid, end))
        extra = {} if self.until is None else {"test_long": _part(grid, test, len(grid.ts))}
        return Splits(_part(grid, train, end), _part(grid, val, end), _part(grid, test, end), extra)

    @functools.cached_property
    def _states(self) -> Splits[Points]:
        """All states observed along the trajectories."""
        parts = {name: Points(_observed(part)) for name, part in self._trajectories.items()}
        return Splits(parts.pop("train"), parts.pop("val"), parts.pop("test"), parts)

    def _in_words(self, grid: Grid, end: int) -> str:
        counts = grid.counts
        left_out = {
            "rows before a series' first complete one": counts.early,
            "rows with missing values": counts.incomplete,
            "series of fewer than two complete rows": counts.short,
        }
        notes = [f"{number:,} {what}" for what, number in left_out.items() if number]
        gaps = "" if grid.seen.all() else f", {grid.seen.mean():.1%} of it observed"
        moved = f", times rounded by up to {counts.moved:.3g}" if self.step is not None and counts.moved else ""
        cut = "" if self.until is None else f", training up to t={grid.ts[end - 1]:g}"
        return (
            f"{self.path}: {counts.rows:,} rows, {counts.series:,} series of {', '.join(self._values)}; "
            f"{counts.missing:,} missing values; left out: {', '.join(notes) or 'nothing'}; "
            f"a grid of {len(grid.ts):,} times from {grid.ts[0]:g} to {grid.ts[-1]:g}{gaps}{moved}{cut}"
        )

    # --- examples ----------------------------------------------------------------------------------

    @functools.cached_property
    def _examples(self) -> Splits[Labelled]:
        """Rows as examples; without labels all are of one class."""
        table = self._table
        x = np.stack([table.numbers[name] for name in self._values], axis=-1)
        y = np.zeros(len(table), dtype=np.int64)
        if self.label is not None:
            words = table.words[self.label]
            if "" in words:
                raise table.refuse(words.index(""), self.label, "expected a class, got nothing")
            number = {name: i for i, name in enumerate(self._classes)}
            y = np.fromiter(map(number.__getitem__, words), np.int64, len(words))
        missing = np.isnan(x)
        full = ~missing.any(axis=1)
        x, y = x[full], y[full]
        left_out = f"{(~full).sum():,} rows" if not full.all() else "nothing"
        classes = f" of {len(self._classes)} classes" if self.label is not None else ""
        log.info("%s: %s rows%s of %s; %s missing values; left out: %s", self.path, f"{len(table):,}", classes,
                 ", ".join(self._values), f"{missing.sum():,}", left_out)  # fmt: skip
        train, val, test = (
            Labelled(torch.from_numpy(x[rows]), torch.from_numpy(y[rows]))
            for rows in self._choice(len(x), "rows", "a larger file")
        )
        return Splits(train, val, test)

    @functools.cached_property
    def _classes(self) -> list[str]:
        """The classes by name, in the order of numbers where all are."""
        assert self.label is not None
        names = set(self._table.words[self.label])
        try:
            classes = sorted(names, key=float)
        except ValueError:
            classes = sorted(names)
        if len(classes) < 2:
            raise ConfigError(f"{self.path}: column '{self.label}' has one class only, {classes[0]}; use dataset.label "
                              "of a column that has more")  # fmt: skip
        return classes

    def _choice(self, count: int, what: str, remedy: str) -> list[NDArray[np.int64]]:
        """Which of `count` samples are for training, validation and test."""
        val, test = (max(1, round(share * count)) for share in self.shares)
        if count < val + test + 1:
            raise ConfigError(
                f"{self.path}: expected at least 3 {what}, for training, validation and test, got {count}; use {remedy}"
            )
        order = stream(self.seed, TRAIN).permutation(count)
        parts = order[val + test :], order[:val], order[val : val + test]
        return [np.sort(part) for part in parts]


def _part(grid: Grid, rows: NDArray[np.int64], end: int) -> Trajectories:
    """Some of the series, up to a point of the grid."""
    seen = torch.from_numpy(grid.seen[rows, :end])
    ys, ts = torch.from_numpy(grid.ys[rows, :end]), torch.from_numpy(grid.ts[:end].copy())
    return Trajectories(ts, ys, None if bool(seen.all()) else seen)


def _observed(part: Trajectories) -> Tensor:
    """(n, D) the states that were observed."""
    return part.ys.flatten(0, 1) if part.mask is None else part.ys[part.mask]
