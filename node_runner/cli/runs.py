"""Finds runs: one by its folder, or all below a folder or a pattern."""

from __future__ import annotations

import difflib
import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

from node_runner.cli import journal
from node_runner.errors import ConfigError
from node_runner.reporting.run_folder import RunFolder


def find_run(path: Path) -> RunFolder:
    """The run in a folder; a file of the run will do for the folder.

    Raises:
        ConfigError: there is none, with a folder of a similar name.
    """
    folder = path.parent if path.is_file() else path
    if (folder / "config.yaml").is_file():
        return RunFolder(folder)
    if not folder.exists():
        raise ConfigError(f"{path}: no such folder; {_nearest(path)}")
    below = [run.path for run in _below(folder)]
    if below:
        held = "a run further down" if len(below) == 1 else f"{len(below)} runs"
        raise ConfigError(f"{path}: holds {held}, and the folder of one is wanted, such as {below[-1]}")
    raise ConfigError(f"{path}: not a run; it has no config.yaml")


def find_runs(places: Sequence[str]) -> list[RunFolder]:
    """The runs in the given folders and below them. Patterns such as `outputs/*/*` may be quoted.

    Raises:
        ConfigError: a place holds no run.
    """
    found: dict[Path, RunFolder] = {}
    # By a shell outputs/sweeps/NAME/* names these too.
    for place in [place for place in places if not _belongs_to_a_sweep(Path(place))] or places:
        matches = sorted(glob.glob(place)) if glob.has_magic(place) and not Path(place).exists() else [place]
        runs = [run for match in matches for run in _at(Path(match))]
        if not runs:
            there = matches and Path(matches[0]).exists()
            raise ConfigError(f"{place}: " + ("holds no run" if there else f"no such folder; {_nearest(Path(place))}"))
        found.update({run.path.resolve(): run for run in runs})
    return list(found.values())


def _belongs_to_a_sweep(path: Path) -> bool:
    """Whether this is a file that a sweep keeps beside its runs."""
    return path.is_file() and (path.parent / journal.FILE).is_file()


def _at(path: Path) -> Iterator[RunFolder]:
    folder = path.parent if path.is_file() else path
    if (folder / "config.yaml").is_file():
        yield RunFolder(folder)
    elif path.is_dir():
        yield from _below(folder)


def _below(folder: Path) -> Iterator[RunFolder]:
    """By name; the runs of a sweep in the order of its jobs."""
    runs = {config.parent for config in folder.rglob("config.yaml") if config.parent.name != ".hydra"}
    numbers = {sweep / job.folder: job.number for sweep in {run.parent for run in runs} for job in journal.read(sweep)}
    for run in sorted(runs, key=lambda run: (run.parent, numbers.get(run, -1), run)):
        yield RunFolder(run)


def _nearest(path: Path) -> str:
    """A closing sentence with the existing path that is most like `path`."""
    beside = [str(other) for other in path.parent.glob("*") if other.is_dir()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(str(path), beside, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    runs = sorted((run.path for run in _below(Path("outputs"))), key=lambda run: run.stat().st_mtime)
    return f"the latest run is {runs[-1]}" if runs else "runs are kept below outputs/"
