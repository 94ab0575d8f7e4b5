"""Finished runs that differ in nothing but their seed: the members of an ensemble."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from node_runner.cli.choices import differing
from node_runner.cli.explain import shown
from node_runner.cli.runs import find_runs
from node_runner.cli.saved import open_saved
from node_runner.errors import ConfigError
from node_runner.reporting.run_folder import RunFolder
from node_runner.runs.saved import Saved


def open_members(places: Sequence[str], which: str) -> list[Saved]:
    """The runs in the given places, with their weights.

    Args:
        places: runs, folders of runs, or patterns.
        which: checkpoint, "best" or "last".

    Raises:
        ConfigError: fewer than two runs, one that is not complete, or runs that differ in more than their seed.
    """
    folders = find_runs(places)
    if len(folders) < 2:
        raise ConfigError(f"{folders[0].path}: one run is no ensemble; train others with -m seed=0,1,2,3,4")
    refuse_unfinished(folders)
    choices = differing([folder.config for folder in folders])
    others = {key: [run[key] for run in choices] for key in choices[0] if key != "seed"}
    if others:
        key, values = next(iter(others.items()))
        first, other = values[0], next(value for value in values if value != values[0])
        raise ConfigError(
            f"members of an ensemble differ in their seed alone, and these runs have {key}={first} and {key}={other}; "
            "name the runs of one configuration"
        )
    seeds = [run.get("seed") for run in choices]
    twice = next((seed for seed in seeds if seeds.count(seed) > 1), None)
    if twice is not None or "seed" not in choices[0]:
        raise ConfigError(
            f"{folders[0].path}: another of these runs has the same seed, and is the same run; name it once"
        )
    return [open_saved(folder.path, [], which) for folder in folders]


def refuse_unfinished(folders: Sequence[RunFolder]) -> None:
    """Refuse runs that are not complete.

    Raises:
        ConfigError: the first of them, and how it ended.
    """
    for folder in folders:
        if not folder.completed():
            status = folder.read_result()["status"] if folder.result.is_file() else "not ended"
            raise ConfigError(f"{folder.path}: the run is {status}, and completed ones are wanted; leave it out")


def common_folder(folders: Sequence[RunFolder]) -> Path:
    """The innermost folder that holds all of these runs: a sweep's, or one of them for itself alone."""
    return shown(Path(os.path.commonpath([folder.path.resolve() for folder in folders])))
