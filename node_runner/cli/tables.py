"""Tables on stdout: drawn on a terminal, plain columns where the output is piped."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Literal, NamedTuple


class Cell(NamedTuple):
    """A cell that stands out: bold on a terminal, and followed by `mark` where it is plain."""

    text: str
    mark: str = "*"


Row = Sequence[str | Cell]


def show(
    columns: Sequence[str],
    rows: Sequence[Row],
    *,
    title: str = "",
    numbers: Sequence[str] = (),
    wrap: Sequence[str] = ("found", "what it is", "what it means"),
) -> None:
    """Print a table.

    Args:
        columns: headings; no headings are printed where all are empty.
        rows: cells.
        title: a line above.
        numbers: columns that are aligned to the right.
        wrap: columns whose cells may be broken into lines on a narrow terminal.
    """
    if sys.stdout.isatty():
        _draw(columns, rows, title, numbers, wrap)
    else:
        _plain(columns, rows, title, numbers)


def _draw(columns: Sequence[str], rows: Sequence[Row], title: str, numbers: Sequence[str], wrap: Sequence[str]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells = [[Text(cell.text, style="bold") if isinstance(cell, Cell) else Text(cell) for cell in row] for row in rows]
    table = Table(title=title or None, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.padding = (0, 1, 0, 0)
    table.show_header = any(columns)
    needed = 0
    for index, column in enumerate(columns):
        # Headings may be broken, other cells only in columns that wrap.
        heading = column.replace("_", " ").replace("/", "/ ")
        width = max((len(word) for word in heading.split()), default=0)
        if column not in wrap:
            width = max(width, *(len(row[index]) for row in cells), 0)
        needed += width + 2
        side: Literal["left", "right"] = "right" if column in numbers else "left"
        most = None if column in wrap else width
        table.add_column(heading, justify=side, overflow="fold", min_width=width, max_width=most)
    for row in cells:
        table.add_row(*row)
    console = Console(highlight=False)
    console.width = max(console.width, needed)
    console.print(table)


def _plain(columns: Sequence[str], rows: Sequence[Row], title: str, numbers: Sequence[str]) -> None:
    cells = [[cell.text + cell.mark if isinstance(cell, Cell) else cell for cell in row] for row in rows]
    lines = [list(columns), *cells] if any(columns) else cells
    widths = [max((len(line[i]) for line in lines), default=0) for i in range(len(columns))]
    right = [column in numbers for column in columns]
    if title:
        print(title)
    for line in lines:
        padded = (
            text.rjust(width) if flush else text.ljust(width)
            for text, width, flush in zip(line, widths, right, strict=True)
        )
        print("  ".join(padded).rstrip())
