"""Rows of observations, put on a common grid of times: from a long table to trajectories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node_runner.datasets.tables import Table
from node_runner.errors import ConfigError


Array = NDArray[np.float64]
Integers = NDArray[Any]
Flags = NDArray[np.bool_]

MOST = 500_000_000
"""Numbers that the grid of all series may have."""

SAME = 1e-9
"""Times nearer to one another than this share of the whole span are one time."""


@dataclass
class Counts:
    """What became of the rows, for the log. Nothing is left out without being counted here."""

    rows: int = 0
    series: int = 0
    missing: int = 0
    incomplete: int = 0
    early: int = 0
    short: int = 0
    moved: float = 0.0


@dataclass(frozen=True)
class Grid:
    """Series on common times.

    Attributes:
        names: (N) of the series, in the order of the file.
        ts: (T,) times, increasing.
        ys: (N, T, D) states; what was not observed has the state observed before it.
        seen: (N, T) true where observed; the first point of every series is.
        counts: of the rows that it was made of.
    """

    names: list[str]
    ts: Array
    ys: Array
    seen: Flags
    counts: Counts = field(default_factory=Counts)


def make_grid(
    table: Table,
    *,
    series: str | None,
    time: str,
    values: Sequence[str],
    relative: bool,
    step: float | None,
    cut: float | None,
) -> Grid:
    """Put a table's rows on a grid.

    Args:
        table: one row an observation.
        series: column of words that tells series apart (None: the rows are one series).
        time: column of times.
        values: columns of the state. A row that lacks one of them is no observation.
        relative: count the times of each series from its first observation; else all must begin at one time.
        step: spacing of the grid, to whose points times are rounded (None: the times of all series together).
        cut: cut the series into pieces of this length, each a series of its own (None: leave them whole).

    Raises:
        DataError: a row without series or time, times that do not increase, two rows at one point of the grid; the
            message names the row.
        ConfigError: the grid has too many points, or series begin at different times.
    """
    names, owner = _series(table, series)
    t = table.numbers[time]
    if np.isnan(t).any():
        raise table.refuse(int(np.isnan(t).argmax()), time, "expected a time, got nothing")
    order = np.argsort(owner, kind="stable")  # rows of a series together, in the order of the file
    _check_increasing(table, time, names, owner, order)
    if cut is not None:
        names, owner, order = _pieces(names, owner, t, order, cut)

    y = np.stack([table.numbers[name] for name in values], axis=-1)
    counts = Counts(rows=len(table), series=len(names), missing=int(np.isnan(y).sum()))
    order = _complete(y, owner, order, counts)
    kept, order, owner_of = _long_enough(len(names), owner, order, counts)
    if not len(kept):
        raise ConfigError(f"{table.path}: no series has two rows without missing values; use other dataset.values")
    names = [names[i] for i in kept]

    starts = _starts(table, time, names, order, owner_of, same=not relative)
    times = t[order] - starts[owner_of] if relative else t[order]
    ts, place = _places(times, step, MOST // (len(names) * len(values)))
    if ts is None:
        raise ConfigError(f"{table.path}: {len(names):,} series of {len(values)} values are too many for a common "
                          "grid of times; use a larger dataset.step, to which times are rounded")  # fmt: skip
    counts.moved = float(np.abs(ts[place] - times).max())
    _check_apart(table, time, order, owner_of, place)
    seen, ys = _filled(y[order], owner_of, place, (len(names), len(ts)))
    return Grid(names, ts, ys, seen, counts)


def _complete(y: Array, owner: Integers, order: Integers, counts: Counts) -> Integers:
    """The rows of `order` that lack no value; the others are counted."""
    complete: Flags = ~np.any(np.isnan(y), axis=1)
    full = complete[order]
    started = _seen_before(full, owner[order])
    counts.early, counts.incomplete = int((~started).sum()), int((started & ~full).sum())
    return order[full]


def _long_enough(series: int, owner: Integers, order: Integers, counts: Counts) -> tuple[Integers, Integers, Integers]:
    """Which of the series have two rows, with less than which there is nothing to predict; the rows of these, and their
    series (n,) counted anew.
    """
    rows = np.bincount(owner[order], minlength=series)
    kept = np.flatnonzero(rows >= 2)
    counts.short = series - len(kept)
    order = order[(rows >= 2)[owner[order]]]
    number = np.full(series, -1)
    number[kept] = np.arange(len(kept))
    return kept, order, number[owner[order]]


def _starts(table: Table, time: str, names: list[str], order: Integers, owner: Integers, *, same: bool) -> Array:
    """When each series begins (N,); `same` refuses those that begin at different times."""
    t = table.numbers[time]
    first = np.flatnonzero(np.diff(owner, prepend=-1))
    starts: Array = t[order][first]
    late = np.abs(starts - starts.min()) > SAME * np.ptp(t)
    if same and late.any():
        series = int(late.argmax())
        row = int(order[first[series]])
        reason = f"series '{names[series]}' begins at {t[row]:.12g} and others at {starts.min():.12g}"
        raise table.refuse(row, time, f"{reason}, but trajectories start together; use dataset.relative=true")
    return starts


def _check_apart(table: Table, time: str, order: Integers, owner: Integers, place: Integers) -> None:
    clash = (np.diff(place) == 0) & (np.diff(owner) == 0)
    if not clash.any():
        return
    one, other = int(order[clash.argmax()]), int(order[clash.argmax() + 1])
    t = table.numbers[time]
    raise table.refuse(other, time, f"{t[other]:.12g} and {t[one]:.12g} of {table.where(one)} fall on "
                       "one point of the grid; use a smaller dataset.step")  # fmt: skip


def _filled(y: Array, owner: Integers, place: Integers, size: tuple[int, int]) -> tuple[Flags, Array]:
    """What is seen (N, T), and states (N, T, D) with the one before it where nothing is; from rows y (n, D)."""
    seen = np.zeros(size, dtype=bool)
    seen[owner, place] = True
    ys = np.zeros((*size, y.shape[1]))
    ys[owner, place] = y
    if not seen.all():
        latest = np.where(seen, np.arange(size[1]), 0)
        before = np.asarray(np.maximum.accumulate(latest, axis=1))
        ys = np.take_along_axis(ys, before[:, :, None], axis=1)
    return seen, ys


def _series(table: Table, column: str | None) -> tuple[list[str], Integers]:
    """The names of the series in order of appearance, and the series (n,) of each row."""
    if column is None:
        return ["all rows"], np.zeros(len(table), dtype=np.int64)
    words = table.words[column]
    numbers: dict[str, int] = {}
    owner = np.fromiter((numbers.setdefault(word, len(numbers)) for word in words), np.int64, len(words))
    if "" in numbers:
        raise table.refuse(words.index(""), column, "expected the name of a series, got nothing")
    return list(numbers), owner


def _check_increasing(table: Table, time: str, names: list[str], owner: Integers, order: Integers) -> None:
    t = table.numbers[time][order]
    wrong = (np.diff(t) <= 0) & (np.diff(owner[order]) == 0)
    if not wrong.any():
        return
    # The first such row of the file, whatever its series.
    places = np.flatnonzero(wrong)
    place = places[order[places + 1].argmin()]
    before, row = int(order[place]), int(order[place + 1])
    here, there, name = t[place + 1], t[place], names[owner[row]]
    if here == there:
        reason = f"time {here:.12g} of series '{name}' is a duplicate of {table.where(before)}; use one row a time"
    else:
        reason = (f"time {here:.12g} of series '{name}' comes after {there:.12g} of {table.where(before)}; "
                  "use rows in the order of time")  # fmt: skip
    raise table.refuse(row, time, reason)


def _pieces(
    names: list[str], owner: Integers, t: Array, order: Integers, cut: float
) -> tuple[list[str], Integers, Integers]:
    """Each series as pieces of length `cut`, counted from its first row."""
    first = np.flatnonzero(np.diff(owner[order], prepend=-1))
    begins = np.empty(len(names))
    begins[owner[order][first]] = t[order][first]
    # A row on a cut belongs to the piece that begins there, rounding or not.
    piece = np.floor((t - begins[owner]) / cut * (1 + 4e-16) + 1e-9).astype(np.int64)
    both = np.stack((owner[order], piece[order]), axis=1)
    new = np.any(np.diff(both, axis=0, prepend=-1) != 0, axis=1)
    owner = owner.copy()
    owner[order] = np.cumsum(new) - 1
    return [f"{names[i]}, piece {k + 1}" for i, k in both[new].tolist()], owner, order


def _seen_before(full: Flags, owner: Integers) -> Flags:
    """(n,) whether a row, or one of its series before it, is complete; rows of a series stand together."""
    total = np.cumsum(full)
    first = np.flatnonzero(np.diff(owner, prepend=-1))
    before: Integers = (total - full)[first]
    started: Flags = total > np.repeat(before, np.diff(first, append=len(owner)))
    return started


def _places(times: Array, step: float | None, most: int) -> tuple[Array | None, Integers]:
    """The grid (T,), None where it had more than `most` points, and the place (n,) of each time on it."""
    low = times.min()
    if step is not None:
        if np.ptp(times) / step >= most:
            return None, np.empty(0, dtype=np.int64)
        place = np.rint((times - low) / step).astype(np.int64)
        # Multiples of one number are as even as float64 allows.
        return low + step * np.arange(place.max() + 1), place
    every = np.unique(times)
    ts = every[np.diff(every, prepend=-np.inf) > SAME * (every[-1] - low)]
    return ts if len(ts) <= most else None, np.searchsorted(ts, times, side="right") - 1
