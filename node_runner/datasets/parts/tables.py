"""Tables on disk: columns of numbers and of words, and where in the file each row stands."""

from __future__ import annotations

import csv
import itertools
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node_runner.errors import DataError, did_you_mean


Array = NDArray[np.float64]

SUFFIXES = (".csv", ".tsv", ".txt", ".npz", ".parquet")

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none"})
"""What a cell without a value may hold, in any case."""

CHUNK = 100_000
"""Rows that are read as text at a time."""


@dataclass(frozen=True)
class Chosen:
    """The columns that are wanted of a table: those read as they stand, and those read as numbers."""

    words: tuple[str, ...]
    numbers: tuple[str, ...]


Choose = Callable[[Sequence[str]], Chosen]
"""Given the names of all columns, those that are wanted."""


@dataclass(frozen=True)
class Table:
    """n rows of a file.

    Attributes:
        path: of the file.
        words: columns as they stand in the file, stripped, "" where missing.
        numbers: columns (n,), NaN where missing.
        where: the place of a row (0, 1, ...) in the file, in words.
    """

    path: Path
    words: dict[str, list[str]]
    numbers: dict[str, Array]
    where: Callable[[int], str]

    def __len__(self) -> int:
        columns: list[Any] = [*self.words.values(), *self.numbers.values()]
        return len(columns[0])

    def refuse(self, row: int, column: str, reason: str) -> DataError:
        """The error for a cell."""
        return DataError(f"{self.path}, {self.where(row)}, column '{column}': {reason}")


def read_table(path: Path, delimiter: str, choose: Choose) -> Table:
    """Read a CSV, NPZ or Parquet file by its suffix. Infinite numbers are refused.

    Args:
        path: of the file.
        delimiter: between the cells of a text file (that of a .tsv is a tab).
        choose: the columns that are wanted.

    Raises:
        DataError: no such file, one that cannot be read, or a cell that does not hold what it should; the message
            names the row and the column.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{path}: expected a file ending in {', '.join(SUFFIXES)}; use one of them")
    if not path.is_file():
        raise DataError(f"{path}: no such file; use dataset.path=FILE with one that exists")
    if suffix == ".npz":
        table = _arrays(path, choose)
    elif suffix == ".parquet":
        table = _parquet(path, choose)
    else:
        table = _text(path, "\t" if suffix == ".tsv" else delimiter, choose)
    if not len(table):
        raise DataError(f"{path}: holds no row; use a file with data")
    for name, column in table.numbers.items():
        infinite = np.isinf(column)
        if infinite.any():
            row = int(infinite.argmax())
            raise table.refuse(row, name, f"expected a finite number, got {column[row]:g}")
    return table


def find_column(path: Path, setting: str, name: str, columns: Sequence[str]) -> str:
    """`name`, which must be one of the columns.

    Raises:
        DataError: it is not, with those that are, and what the file seems to be instead.
    """
    if name in columns:
        return name
    between = next((mark for mark in ";\t|" if len(columns) == 1 and mark in columns[0]), None)
    if between is not None:
        shown = "\\t" if between == "\t" else between
        raise DataError(f"""{path}: its cells stand apart by '{shown}'; use 'dataset.delimiter="{between}"'""")
    if all(map(_is_number, columns)):
        raise DataError(f"{path}: its first line holds numbers; use a first line that names the columns")
    without = f", or dataset.{setting}=null if there is none" if setting in ("id", "time") else ""
    raise DataError(f"{path}: no column '{name}' (dataset.{setting}{without}); {did_you_mean(name, columns)}")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


# --- text ------------------------------------------------------------------------------------------


def _text(path: Path, delimiter: str, choose: Choose) -> Table:
    with _opened(path, delimiter) as reader:
        header = [name.strip() for name in next(reader, [])]
        if not header:
            raise DataError(f"{path}: is empty; use a file whose first line names the columns")
        twice = next((name for i, name in enumerate(header) if name in header[:i]), None)
        if twice is not None:
            raise DataError(f"{path}, line 1: two columns are called '{twice}'; use a name for each")
        chosen = choose(header)
        places = {name: header.index(name) for name in (*chosen.words, *chosen.numbers)}
        words: dict[str, list[str]] = {name: [] for name in chosen.words}
        numbers: dict[str, list[Array]] = {name: [np.empty(0)] for name in chosen.numbers}
        kept: dict[str, str] = {}  # one object for all cells of one word

        def where(row: int) -> str:
            return f"line {_line(path, delimiter, row)}"

        table = Table(path, words, {}, where)
        for first in itertools.count(0, CHUNK):
            rows = list(itertools.islice((row for row in reader if row), CHUNK))
            if not rows:
                break
            for i, row in enumerate(rows):
                if len(row) != len(header):
                    raise DataError(f"{path}, {where(first + i)}: expected {len(header)} fields, as the first line "
                                    f"has, got {len(row)}")  # fmt: skip
            cells = list(zip(*rows, strict=True))
            for name in words:
                words[name] += [kept.setdefault(cell, cell.strip()) for cell in cells[places[name]]]
            for name in chosen.numbers:
                numbers[name].append(_numbers(cells[places[name]], table, name, first))
    table.numbers.update({name: np.concatenate(parts) for name, parts in numbers.items()})
    return table


@contextmanager
def _opened(path: Path, delimiter: str) -> Iterator[Any]:
    """A reader of the rows of a text file; what goes wrong in it is a DataError."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True, strict=True)
        try:
            yield reader
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: is not text in UTF-8 ({error.reason}); save it as such") from error
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: {error}") from error


def _line(path: Path, delimiter: str, row: int) -> int:
    """The line on which a row ends: empty lines are no rows, and a cell in quotes may run over several lines."""
    with _opened(path, delimiter) as reader:
        next(reader)
        for found, _ in enumerate(filter(None, reader)):
            if found == row:
                return int(reader.line_num)
    raise AssertionError("rows are counted as they were read")


def _numbers(cells: Sequence[str], table: Table, name: str, first: int) -> Array:
    """Numbers of the cells of a column, from row `first` on."""
    try:
        return np.fromiter(map(float, cells), np.float64, len(cells))
    except ValueError:
        pass
    column = np.full(len(cells), np.nan)
    for i, cell in enumerate(cells):
        try:
            column[i] = float(cell)
        except ValueError:
            if cell.strip().lower() not in MISSING:
                raise table.refuse(
                    first + i, name, f"expected a number, got '{cell}'; dataset.values chooses the columns of the state"
                ) from None
    return column


# --- arrays ----------------------------------------------------------------------------------------


def _where(row: int) -> str:
    return f"row {row + 1}"


def _arrays(path: Path, choose: Choose) -> Table:
    """Columns of an NPZ file: its arrays (n,), and those of an array x (n, k) as x1 to xk."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: is not an NPZ file of numbers and words; save it with numpy.savez") from error
    shapes = {name: array.shape for name, array in arrays.items()}
    if any(len(shape) not in (1, 2) for shape in shapes.values()) or len({shape[:1] for shape in shapes.values()}) != 1:
        found = ", ".join(f"{name} {shape}" for name, shape in shapes.items()) or "none"
        raise DataError(
            f"{path}: expected arrays (n,) or (n, k) of one length n, a row an observation, got {found}; "
            "use np.concatenate on series of their own, and an array that says to which each row belongs"
        )
    columns: dict[str, Any] = {name: array for name, array in arrays.items() if array.ndim == 1}
    for name, array in arrays.items():
        for place, column in enumerate(array.T if array.ndim == 2 else (), 1):
            if f"{name}{place}" in columns:
                raise DataError(f"{path}: column {place} of {name} would be {name}{place}, which there is; rename one")
            columns[f"{name}{place}"] = column
    return _table(path, columns, choose)


def _parquet(path: Path, choose: Choose) -> Table:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(f"{path}: Parquet files need pyarrow; use `pip install 'node-runner[parquet]'`") from error
    try:
        names = pyarrow.parquet.read_schema(path).names
        chosen = choose(names)
        content = pyarrow.parquet.read_table(path, columns=[*chosen.words, *chosen.numbers])
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: is not a Parquet file that can be read ({error})".replace("\n", " ")) from error
    columns = {name: content[name].to_numpy() for name in content.column_names}
    return _table(path, columns, lambda _: chosen)


def _table(path: Path, columns: dict[str, Any], choose: Choose) -> Table:
    """A table of arrays (n,) that may hold numbers, words or objects."""
    chosen = choose(list(columns))
    table = Table(path, {}, {}, _where)
    for name in chosen.words:
        cells = columns[name]
        table.words[name] = ["" if cell is None or cell != cell else str(cell).strip() for cell in cells.tolist()]
    for name in chosen.numbers:
        column = columns[name]
        if column.dtype.kind in "iuf":
            table.numbers[name] = column.astype(np.float64)
        else:
            cells = ["" if cell is None else str(cell) for cell in column.tolist()]
            table.numbers[name] = _numbers(cells, table, name, 0)
    return table
