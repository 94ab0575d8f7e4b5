"""A table of the metrics."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from node_runner.reporting import LOGGERS
from node_runner.reporting.run_folder import RunFolder


@LOGGERS.register("csv", "metrics.csv, a row a logging step, for spreadsheets and pandas")
class CsvLogger:
    """Writes metrics.csv when the run ends, well or not: metrics.jsonl as a table, with a column for each name.

    A cell is empty where a step has no such metric, or one that is not finite.

    Args:
        folder: of the run.
        step: at which the run begins; what came before it is in metrics.jsonl too.
    """

    def __init__(self, folder: Path, step: int, /) -> None:
        self._folder = RunFolder(folder)

    def begin(self, config: Mapping[str, Any]) -> None:
        """Nothing to do."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Nothing to do: what is told here is in metrics.jsonl."""

    def figure(self, name: str, figure: Figure, step: int) -> None:
        """A table has no figures."""

    def text(self, name: str, text: str) -> None:
        """Nor text."""

    def finish(self, config: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """Write the table."""
        lines = list(self._folder.read_metrics())
        names = dict.fromkeys(name for line in lines for name in line)
        with self._folder.table.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, list(names))
            table.writeheader()
            table.writerows(lines)

    def close(self) -> None:
        """Nothing to do."""
