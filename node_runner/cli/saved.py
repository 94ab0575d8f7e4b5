"""The trained run that a command is given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from node_runner.cli.explain import shown
from node_runner.cli.runs import find_run
from node_runner.errors import ConfigError
from node_runner.runs.saved import CHECKPOINTS, Saved, restore


def open_saved(path: Path, overrides: Sequence[str], which: str) -> Saved:
    """The run in a folder, built again with its weights.

    Args:
        path: folder of the run.
        overrides: settings to change, and groups to switch.
        which: "best" or "last".

    Raises:
        ConfigError: no such run or checkpoint, or overrides that do not fit the weights.
    """
    if which not in CHECKPOINTS:
        raise ConfigError(f"--checkpoint {which}: expected {' or '.join(CHECKPOINTS)}")
    return restore(find_run(path), overrides, which)


def place(saved: Saved) -> str:
    """The run's folder, as a person would type it."""
    return str(shown(saved.folder.path.resolve()))
