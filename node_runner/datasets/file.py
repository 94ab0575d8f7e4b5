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
from node_runner.datasets.parts.file_series import FileSeries, classes_of
from node_runner.datasets.parts.grid import Grid, Layout, make_grid
from node_runner.datasets.parts.irregular import known_mean_std
from node_runner.datasets.parts.streams import TRAIN, Array, mean_std, not_offered, stream
from node_runner.datasets.parts.tables import Chosen, Table, find_column, read_table
from node_runner.errors import ConfigError
from node_runner.settings import Above, AtMost, Between, Positive, Seed
from node_runner.views import DataSpec, Labelled, Points, Series, Splits, Trajectories, View


log = logging.getLogger("node_runner")


SLOW, LONG = 5.0, 50.0
"""Units of time in which the state moves by its deviation, and that the data last, from which a warning is due."""


@DATASETS.register("file", "your own data: a CSV, NPZ or Parquet file, one row an observation")
class File:
    """Trajectories, irregular series, labelled examples or points, from one row an observation.

    With a `time` the rows are what the model learns from. Series, paths and processes (model=latent, cde, neural_sde
    and their like) have every value that is there, each channel with gaps of its own. Trajectories (model=node and its
    like) and their states as points count as observed where all values are there; a series begins at its first such
    row, since a model starts from it. Rows of different series may alternate, but those of one must be in the order of
    time. Times may be irregular and differ from series to series: trajectories are put on a grid of all of them, or of
    multiples of `step`, and of series, paths and processes each keeps its own.
    With a `label` the series have classes, or the rows are labelled examples; with `time=null` they are points. Of
    examples and points, rows with missing values are left out. Whatever is left out is counted in the log; a cell that
    is wrong (no number, infinite, times that do not increase, a missing id) ends the run with its line.

    A CSV file is text in UTF-8 whose first line names the columns. Missing values are empty cells, NA, NaN, null
    or none. An NPZ file has an array (n,) for each column, or x (n, k) for x1 to xk; a Parquet file needs the extra
    `parquet`.

    Args:
        path: of the file: .csv, .npz or .parquet.
        id: column that tells series apart (null: the rows are one series, which `cut` divides).
        time: column of times (null: the rows have none, and are points).
        values: columns of the state (null: all but the others that are named here).
        label: column of classes, words or numbers, the same in all rows of a series (null: none).
        delimiter: what stands between the cells of a CSV file.
        relative: count the times of each series from its first observation. If not, all trajectories must begin at
            the same time, as those of a system that is driven from outside do.
        step: times are rounded to its multiples (null: none are), which makes the grid of trajectories even, and times
            of different series the same. Rows of a series that meet are refused, as states, or averaged, in series,
            paths and processes.
        cut: length in time of the pieces that series are cut into, each then a series of its own (null: whole).
        until: time at which training, validation and test trajectories end. The test series to their ends are then
            the long-horizon test "test_long". Of series nothing later is seen by a model or taught in training, and
            validation and test measure extrapolation there; paths end (null: the end of the data).
        hidden: share of the times up to there at which a series of validation and test is not seen, to measure
            interpolation (paths and processes: none).
        val_share, test_share: parts of the series, or of the examples, for validation and test.
        seed: of the choice of these parts.
    """

    views: tuple[View, ...] = (View.trajectories, View.points, View.series, View.processes)

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
        hidden: Annotated[float, Between(0, 0.9)] = 0.2,
        val_share: Annotated[float, Above(0), AtMost(0.9)] = 0.2,
        test_share: Annotated[float, Above(0), AtMost(0.9)] = 0.2,
        seed: Seed = 0,
    ) -> None:
        if val_share + test_share >= 1:
            raise ConfigError(f"dataset.val_share={val_share:g} and dataset.test_share={test_share:g} leave nothing to "
                              "train on; use smaller ones")  # fmt: skip
        if len(delimiter) != 1:
            raise ConfigError(f"dataset.delimiter: expected one character, got '{delimiter}'; use dataset.delimiter=,")
        if label is not None:
            self.views = (View.labelled, View.points, *([] if time is None else [View.paths]))
        elif time is None:
            self.views = (View.points,)
        self.path = None if path is None else Path(path).expanduser().absolute()
        self.id, self.time, self.values, self.label = id, time, values, label
        self.delimiter, self.relative, self.step, self.cut, self.until = delimiter, relative, step, cut, until
        self.shares, self.hidden, self.seed = (val_share, test_share), hidden, seed

    def check(self) -> None:
        """Read the file, so that a wrong cell is refused before any work; what a view lacks is told when it is made."""
        self._table  # noqa: B018

    def splits(self, view: View) -> Splits[Any]:
        """Trajectories (N, T, D), labelled examples (N, D), points (N, D), or series (N, T, D)."""
        if view not in self.views:
            raise not_offered("file", view, self.views)
        if view is View.trajectories:
            return self._trajectories
        if view in (View.series, View.processes, View.paths):
            return self._series(view)
        if view is View.labelled:
            return self._examples
        if View.trajectories in self.views:
            return self._states
        return self._examples.map(lambda part: Points(part.x))

    def spec(self, view: View) -> DataSpec:
        """Mean and deviation are those of the training observations."""
        part = (self._states if view is View.trajectories else self.splits(view)).train
        mean, std = known_mean_std(part) if isinstance(part, Series) else mean_std(part.x)
        classes = tuple(self._classes) if view in (View.labelled, View.paths) else ()
        names = tuple(self._values)
        times = part.ts.shape[1] if isinstance(part, Series) and part.ts.dim() == 2 else 0
        return DataSpec(
            "file", view, (len(names),), mean, std, len(classes), classes,
            labels=names, clock=self.time or "time", times=times,
        )  # fmt: skip

    # --- what is read ------------------------------------------------------------------------------

    @functools.cached_property
    def _table(self) -> Table:
        if self.path is None:
            raise ConfigError("dataset=file: no file is given; use dataset.path=FILE")
        return read_table(self.path, self.delimiter, self._choose)

    def _choose(self, columns: Sequence[str]) -> Chosen:
        assert self.path is not None
        self._columns = columns
        named = {"label": self.label} if self.time is None else {"id": self.id, "time": self.time, "label": self.label}
        if self.label is not None:  # examples need no series and no order of time
            named = {setting: name for setting, name in named.items() if name == self.label or name in self._spare}
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

    @property
    def _spare(self) -> list[str]:
        """Columns that are not asked for as values."""
        return [name for name in self._columns if name not in (self.values or ())]

    # --- trajectories and series -------------------------------------------------------------------

    @functools.cached_property
    def _values_read(self) -> NDArray[np.float64]:
        """(rows, D), NaN where missing."""
        table = self._table  # which finds out what the values are
        return np.stack([table.numbers[name] for name in self._values], axis=-1)

    def _grid(self, usable: NDArray[np.bool_], *, states: bool) -> Grid:
        assert self.path is not None
        assert self.time is not None
        for setting, name in (("id", self.id), ("time", self.time)):
            if name is not None:
                find_column(self.path, setting, name, self._spare)
        layout = Layout(self.id, self.time, self.relative, states, self.step, self.cut)
        return make_grid(self._table, usable, len(self._values), layout)

    def _end(self, grid: Grid) -> int:
        """How many points of the grid come up to `until`."""
        end = len(grid.ts) if self.until is None else int((grid.ts <= self.until * (1 + 1e-9)).sum())
        if end < 2 or (self.until is not None and end == len(grid.ts)):
            raise ConfigError(f"dataset.until={self.until:g}: expected a time within the data's, which are from "
                              f"{grid.ts[0]:g} to {grid.ts[-1]:g}; use one between, or null")  # fmt: skip
        return end

    @functools.cached_property
    def _trajectories(self) -> Splits[Trajectories]:
        y = self._values_read
        grid = self._grid(~np.any(np.isnan(y), axis=1), states=True)
        seen, ys = grid.states(y)
        end = self._end(grid)
        train, val, test = self._choice(len(grid.names), "series", "dataset.cut or dataset.id")
        left_out = {
            "rows before a series' first complete one": grid.counts.early,
            "rows with missing values": grid.counts.unusable,
            "series of fewer than two complete rows": grid.counts.short,
        }
        gaps = "" if seen.all() else f", {seen.mean():.1%} of it observed"
        log.info("%s", self._in_words(grid, end, left_out, gaps))
        self._warn_of_slow_time(grid.ts[:end], ys[:, :end], seen[:, :end])

        def part(rows: NDArray[np.int64], end: int) -> Trajectories:
            mask = torch.from_numpy(seen[rows, :end])
            ts = torch.from_numpy(grid.ts[:end].copy())
            return Trajectories(ts, torch.from_numpy(ys[rows, :end]), None if bool(mask.all()) else mask)

        extra = {} if self.until is None else {"test_long": part(test, len(grid.ts))}
        return Splits(part(train, end), part(val, end), part(test, end), extra)

    def _warn_of_slow_time(self, ts: Array, ys: Array, seen: NDArray[np.bool_]) -> None:
        """An untrained field moves the state by about its deviation in a unit of time: where the data need many for
        that, it may explode before their end.
        """
        unit, length = time_to_move(ts, ys, seen), ts[-1] - ts[0]
        if unit >= SLOW and length > LONG:
            log.warning(
                "%s: the state takes some %.2g units of '%s' to move by its deviation, an untrained field about one, "
                "and so may explode over %.4g of them; use times divided by %.2g",
                self.path, unit, self.time, length, unit,
            )  # fmt: skip

    @functools.cached_property
    def _states(self) -> Splits[Points]:
        """All states observed along the trajectories."""
        return self._trajectories.map(lambda part: Points(_observed(part)))

    @functools.cached_property
    def _on_their_times(self) -> FileSeries:
        """All series with every value that there is."""
        y = self._values_read
        grid = self._grid(~np.all(np.isnan(y), axis=1), states=False)
        end = self._end(grid)
        left_out = {
            "rows without a value": grid.counts.early + grid.counts.unusable,
            "series of fewer than two rows with a value": grid.counts.short,
        }
        most = int(np.bincount(grid.owner).max())
        log.info("%s", self._in_words(grid, end, left_out, f", of a series up to {most:,}"))
        labels = None
        if self.label is not None:
            labels = classes_of(grid, self._table, self.label, self._numbered, self._classes)
        return FileSeries(grid, y, end, self.hidden, self.seed, labels)

    def _series(self, view: View) -> Splits[Series]:
        series = self._on_their_times
        return series.splits(view, *self._choice(len(series.grid.names), "series", "dataset.cut or dataset.id"))

    def _in_words(self, grid: Grid, end: int, left_out: dict[str, int], gaps: str) -> str:
        counts = grid.counts
        notes = [f"{number:,} {what}" for what, number in left_out.items() if number]
        moved = f", times rounded by up to {counts.moved:.3g}" if self.step is not None and counts.moved else ""
        met = f", {counts.met:,} rows averaged with others at their point" if counts.met else ""
        cut = "" if self.until is None else f", training up to t={grid.ts[end - 1]:g}"
        missing = int(np.isnan(self._values_read).sum())
        return (
            f"{self.path}: {counts.rows:,} rows, {counts.series:,} series of {', '.join(self._values)}; "
            f"{missing:,} missing values; left out: {', '.join(notes) or 'nothing'}; "
            f"{len(grid.ts):,} times from {grid.ts[0]:g} to {grid.ts[-1]:g}{gaps}{moved}{met}{cut}"
        )

    # --- examples ----------------------------------------------------------------------------------

    @functools.cached_property
    def _examples(self) -> Splits[Labelled]:
        """Rows as examples; without labels all are of one class."""
        table, x = self._table, self._values_read
        y = np.zeros(len(table), dtype=np.int64) if self.label is None else self._numbered
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
    def _numbered(self) -> NDArray[np.int64]:
        """(rows,) the class of each."""
        assert self.label is not None
        words = self._table.words[self.label]
        if "" in words:
            raise self._table.refuse(words.index(""), self.label, "expected a class, got nothing")
        number = {name: i for i, name in enumerate(self._classes)}
        return np.fromiter(map(number.__getitem__, words), np.int64, len(words))

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


def _observed(part: Trajectories) -> Tensor:
    """(n, D) the states that were observed."""
    return part.ys.flatten(0, 1) if part.mask is None else part.ys[part.mask]


def time_to_move(ts: Array, ys: Array, seen: NDArray[np.bool_]) -> float:
    """Time in which states (N, T, D), where seen (N, T), move by their deviation, mean over all axes that vary."""
    both = seen[:, 1:] & seen[:, :-1]
    deviation = ys[seen].std(axis=0)
    varies = deviation > 0
    if not both.any() or not varies.any():
        return 0.0
    speed = np.abs(np.diff(ys, axis=1) / np.diff(ts)[:, None])[both][:, varies] / deviation[varies]
    return float(1 / speed.mean()) if speed.any() else 0.0
