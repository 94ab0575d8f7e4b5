"""Several runs, each with what tells it from the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from node_runner.cli.choices import differing
from node_runner.cli.explain import shown
from node_runner.cli.measures import Measures, measure
from node_runner.cli.runs import find_runs
from node_runner.reporting.run_folder import RunFolder


@dataclass(frozen=True)
class Compared:
    """One of several runs.

    Attributes:
        name: its folder, as a person would type it.
        folder: where it is.
        choices: the settings in which the runs differ, the same keys for all; None where one plays no part.
        measures: how good it is, and what it cost.
    """

    name: str
    folder: RunFolder
    choices: dict[str, Any]
    measures: Measures


def read_compared(places: Sequence[str]) -> list[Compared]:
    """The runs in and below the given places, in the order of their names or of a sweep's jobs.

    Raises:
        ConfigError: a place that holds no run.
    """
    folders = find_runs(places)
    runs = []
    for folder, chosen in zip(folders, differing([folder.config for folder in folders]), strict=True):
        found = measure(folder)
        used = {key: None if key.partition(".")[0] in found.unused else value for key, value in chosen.items()}
        runs.append(Compared(str(shown(folder.path.resolve())), folder, used, found))
    return runs


def choice_text(value: Any) -> str:
    """A choice as it is typed."""
    if isinstance(value, float):
        return f"{value:g}"
    return "-" if value is None else str(value)


def short_keys(keys: Sequence[str]) -> list[str]:
    """Keys without their group, where that names them well enough."""
    last = [key.rpartition(".")[2] for key in keys]
    return [name if last.count(name) == 1 else key for key, name in zip(keys, last, strict=True)]
