"""Rows of observations and their times: from a long table to trajectories on common times, and series on their own."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node_runner.datasets.parts.tables import Table
from node_runner.errors import ConfigError


Array = NDArray[np.float64]
Integers = NDArray[Any]
Flags = NDArray[np.bool_]

MOST = 500_000_000
"""Numbers that all series together may have."""

SAME = 2.5e-7
"""Times nearer to one another than this share of the whole span are one time: float32 tells no nearer ones apart."""


@dataclass
class Counts:
    """What became of the rows, for the log. Nothing is left out without being counted here."""

    rows: int = 0
    series: int = 0
    unusable: int = 0
    early: int = 0
    short: int = 0
    moved: float = 0.0
    met: int = 0


@dataclass(frozen=True)
class Grid:
    """Series, and all of their times.

    Attributes:
        names: (N) of the series, in the order of the file.
        ts: (T,) times, increasing.
        rows: (n,) rows of the table that are observations, those of a series together and in the order of time.
        owner, place: (n,) series and time of each.
        counts: of the rows that it was made of.
    """

    names: list[str]
    ts: Array
    rows: Integers
    owner: Integers
    place: Integers
    counts: Counts = field(default_factory=Counts)

    def states(self, y: Array) -> tuple[Flags, Array]:
        """Where a state is observed (N, T), and states (N, T, D) with the one before it where none is.

        The first point of every series is observed if the grid's times count from it.

        Args:
            y: (rows of the table, D) without missing values where there is an observation.
        """
        seen = np.zeros((len(self.names), len(self.ts)), dtype=bool)
        seen[self.owner, self.place] = True
        ys = np.zeros((*seen.shape, y.shape[1]))
        ys[self.owner, self.place] = y[self.rows]
        if not seen.all():
            latest = np.where(seen, np.arange(seen.shape[1]), 0)
            before = np.asarray(np.maximum.accumulate(latest, axis=1))
            ys = np.take_along_axis(ys, before[:, :, None], axis=1)
        return seen, ys

    @functools.cached_property
    def shared(self) -> bool:
        """Whether every series has all of the times."""
        return len(np.unique(self.owner * len(self.ts) + self.place)) == len(self.names) * len(self.ts)

    def values(self, y: Array, chosen: Integers, end: int) -> tuple[Array, Flags, Array]:
        """Times, where values are known (N, K, D), and values, their mean where rows meet and 0 where none is.

        The times are those of each series (N, K) with the first and the last of the grid, which is repeated in padding;
        or (K,), those of the grid, where every series of the file has all of them.

        Args:
            y: (rows of the table, D), NaN where missing.
            chosen: (N,) which series, in order.
            end: how many times of the grid there are for them.
        """
        inside = np.isin(self.owner, chosen) & (self.place < end)
        row, given = np.searchsorted(chosen, self.owner[inside]), y[self.rows[inside]]
        # Series and time as one number each.
        keys = row * end + self.place[inside]
        ends = end * np.arange(len(chosen))
        every = np.unique(np.concatenate((keys, ends, ends + end - 1)))
        owner, place = np.divmod(every, end)
        counts = np.bincount(owner, minlength=len(chosen))
        nth = np.arange(len(every)) - (np.cumsum(counts) - counts)[owner]
        places = np.full((len(chosen), int(counts.max())), end - 1)
        places[owner, nth] = place
        ts = self.ts[:end] if self.shared else self.ts[places]

        at = row, nth[np.searchsorted(every, keys)]
        ys = np.zeros((*places.shape, y.shape[1]))
        number = np.zeros(ys.shape, dtype=np.int32)
        np.add.at(ys, at, np.nan_to_num(given))
        np.add.at(number, at, ~np.isnan(given))
        return ts.copy(), number > 0, ys / np.maximum(number, 1)


@dataclass(frozen=True)
class Layout:
    """How rows become series.

    Attributes:
        series: column of words that tells series apart (None: the rows are one series).
        time: column of times.
        relative: count the times of each series from its first observation.
        states: rows are the states of a system, of which one point of the grid has one only, and of which all series
            have one at the beginning. If not, rows of a series at one time are averaged.
        step: spacing of the grid, to whose points times are rounded (None: the times of all series together).
        cut: cut the series into pieces of this length, each a series of its own (None: leave them whole).
    """

    series: str | None
    time: str
    relative: bool = True
    states: bool = True
    step: float | None = None
    cut: float | None = None


def make_grid(table: Table, usable: Flags, width: int, layout: Layout) -> Grid:
    """Put a table's rows on a grid.

    Args:
        table: one row an observation.
        usable: (n,) rows that are observations; the others are left out, and counted.
        width: D of an observation.
        layout: what makes series of them.

    Raises:
        DataError: a row without series or time, times that do not increase, two rows at one point of the grid; the
            message names the row.
        ConfigError: the grid has too many points, or series begin at different times.
    """
    time = layout.time
    names, owner = _series(table, layout.series)
    t = table.numbers[time]
    if np.isnan(t).any():
        raise table.refuse(int(np.isnan(t).argmax()), time, "expected a time, got nothing")
    order = np.argsort(owner, kind="stable")  # rows of a series together, in the order of the file
    _check_increasing(table, time, names, owner, order)
    if layout.cut is not None:
        names, owner, order = _pieces(names, owner, t, order, layout.cut)

    counts = Counts(rows=len(table), series=len(names))
    order = _usable(usable, owner, order, counts)
    kept, order, owner_of = _long_enough(len(names), owner, order, counts)
    if not len(kept):
        raise ConfigError(f"{table.path}: no series has two rows with the values that are needed; "
                          "use other dataset.values")  # fmt: skip
    names = [names[i] for i in kept]

    same = layout.states and not layout.relative
    starts = _starts(table, time, names, order, owner_of, same=same)
    times = t[order] - starts[owner_of] if layout.relative else t[order]
    most = MOST // (len(names) * width)
    if layout.states:
        ts, place = _places(times, layout.step, most)
        if ts is None:
            raise ConfigError(f"{table.path}: {len(names):,} series of {width} values are too many for a common "
                              "grid of times; use a larger dataset.step, to which times are rounded")  # fmt: skip
    else:
        ts, place = _places_taken(times, layout.step)
        longest = int(np.bincount(owner_of).max())
        if longest > most:
            raise ConfigError(f"{table.path}: {len(names):,} series of {width} values, the longest of {longest:,} "
                              "rows, are too many; use dataset.cut, or fewer dataset.values")  # fmt: skip
    counts.moved = float(np.abs(ts[place] - times).max())
    if layout.states:
        _check_apart(table, time, order, owner_of, place)
    counts.met = len(order) - len(np.unique(owner_of * len(ts) + place))
    return Grid(names, ts, order, owner_of, place, counts)


def _usable(usable: Flags, owner: Integers, order: Integers, counts: Counts) -> Integers:
    """The rows of `order` that are observations; the others are counted."""
    full = usable[order]
    started = _seen_before(full, owner[order])
    counts.early, counts.unusable = int((~started).sum()), int((started & ~full).sum())
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
    """(n,) whether a row, or one of its series before it, is an observation; rows of a series stand together."""
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
    ts, place = _places_taken(times, None)
    return ts if len(ts) <= most else None, place


def _places_taken(times: Array, step: float | None) -> tuple[Array, Integers]:
    """The times (T,) that there are, rounded to multiples of `step` and in order, and the place (n,) of each."""
    if step is not None:
        multiples, place = np.unique(np.rint((times - times.min()) / step), return_inverse=True)
        return times.min() + step * multiples, place
    every = np.unique(times)
    ts = every[np.diff(every, prepend=-np.inf) > SAME * np.ptp(every)]
    return ts, np.searchsorted(ts, times, side="right") - 1
