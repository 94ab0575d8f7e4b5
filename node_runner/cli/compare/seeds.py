"""Runs that differ by their seeds alone, as one: median and range."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from node_runner.reporting.console import number


def without_seeds(keys: Sequence[str]) -> list[str]:
    """Keys of choices, but for seeds."""
    return [key for key in keys if key.rpartition(".")[2] != "seed"]


def over_seeds(
    records: Sequence[dict[str, Any]], chosen: Sequence[str], measured: Sequence[str]
) -> tuple[list[str], list[list[Any]]]:
    """Columns, and a row for each set of completed runs whose choices are equal but for seeds.

    Args:
        records: choices and figures of each run.
        chosen: keys of the choices; those that end in "seed" tell runs of one set apart.
        measured: keys of the figures. One that not every run of a set has is left empty in its row.

    Returns:
        No rows where no set has two runs.
    """
    alike = without_seeds(chosen)
    sets: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for record in records:
        if record["status"] == "completed":
            sets.setdefault(tuple(record[key] for key in alike), []).append(record)
    if len(alike) == len(chosen) or not any(len(runs) > 1 for runs in sets.values()):
        return [], []
    rows = [
        [*choices, len(runs), *(spread([run[key] for run in runs]) for key in measured)]
        for choices, runs in sets.items()
    ]
    return [*alike, "seeds", *measured], rows


def spread(values: Sequence[float | None]) -> str:
    """Median (least to greatest)."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return ""
    middle, least, most = (number(value) for value in (statistics.median(known), min(known), max(known)))
    return middle if least == most else f"{middle} ({least} to {most})"
