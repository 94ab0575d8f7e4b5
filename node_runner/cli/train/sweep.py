"""Jobs of a sweep: what was run before is skipped, what fails does not stop the others, and a table ends it all."""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from node_runner.cli import journal
from node_runner.cli.compare.compared import Compared
from node_runner.cli.compare.winner import winner
from node_runner.cli.explain import explain, report, shown
from node_runner.cli.train.job import composing, execute, forget, remove_empty
from node_runner.config import RunConfig, config_hash, to_run
from node_runner.errors import ConfigError, DataError
from node_runner.reporting.lock import locked
from node_runner.reporting.run_folder import RunFolder
from node_runner.runs.config_file import load_run


log = logging.getLogger("node_runner")

BASIC = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
"""The sweeper that runs every combination and ignores what the jobs return."""


class Begin(Callback):
    """Remembers where the sweep of this process is. Hydra makes it, by configs/config.yaml."""

    folder: Path | None = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """A sweep begins."""
        composing.close()
        Begin.folder = Path(config.hydra.sweep.dir)
        journal.begin(Begin.folder)


def run_job(config: DictConfig, folder: Path, hydra: Any) -> float:
    """Run one job of a sweep, and note how it ended.

    An error is raised only where the sweeper wants to know: the basic one would print it, and end
    the program with it, after the last job.
    """
    overrides = [item for item in hydra.overrides.task if not item.startswith("sweep=")]
    job = journal.Job(hydra.job.num, overrides, folder.name)
    log.info("job %d: %s", job.number, " ".join(overrides))
    try:
        value = _run_or_skip(to_run(config), folder, job)
    except KeyboardInterrupt:
        job.status, job.reason = "interrupted", "stopped by Ctrl-C or SIGTERM"
        raise
    except Exception as error:
        refused = isinstance(error, ConfigError) and forget(folder)
        job.status = "refused" if refused else "failed"
        job.reason = explain(error) or f"{type(error).__name__}: {error}"
        log.error("job %d %s: %s", job.number, job.status, job.reason)
        if not _concluded(hydra):
            raise
        value = math.nan
    finally:
        journal.note(Path(hydra.sweep.dir), job)
    if job.status == "done":
        log.info("job %d: done, val/loss %.4g", job.number, value)
    return value


def _run_or_skip(config: RunConfig, path: Path, job: journal.Job) -> float:
    folder = RunFolder(path)
    if not folder.config.exists():
        return execute(config, path)
    same = config_hash(config) == _hash_of(folder)
    status = folder.read_result()["status"] if folder.result.exists() else "stopped"
    if same and status == "completed":
        log.info("job %d: skipped, it was run before with this configuration", job.number)
        job.status = "skipped"
        value = folder.read_result()["metrics"].get("val/loss")
        return math.nan if value is None else float(value)
    if same and status in ("stopped", "interrupted"):
        log.info("job %d: goes on where it was stopped", job.number)
        return execute(config, path, resume=True)
    log.info("job %d: runs again; before, %s", job.number, f"it {status}" if same else "its configuration was another")
    with locked(path):
        folder.clear()
    return execute(config, path)


def _hash_of(folder: RunFolder) -> str:
    """Hash of the configuration that a job was run with; empty where it is not valid."""
    try:
        return config_hash(load_run(folder.config))
    except ConfigError:  # today's schemas are others
        return ""


def _concluded(hydra: Any) -> bool:
    """Whether `conclude` will run at the end and report failed jobs, so that they need not be reported here."""
    told = any(item._target_.endswith("sweep.Begin") for item in hydra.callbacks.values())
    return bool(told and hydra.sweeper._target_ == BASIC)


def conclude(folder: Path, failure: BaseException | None) -> int:
    """Show the runs of the sweep side by side and say what failed; the exit code."""
    jobs = journal.read(folder)
    if not jobs:
        remove_trace(folder)
        if not isinstance(failure, KeyboardInterrupt) or not folder.exists():
            return 0 if failure is None else report(failure)
    begun = any(folder.glob("*/config.yaml"))  # Ctrl-C can come before the first run has a folder
    if begun and any(job.status != "refused" for job in jobs):
        from node_runner.cli.compare.command import compare

        runs = compare([str(folder)], None, False, None)
        draw_sweep(runs, folder)
        say_winner(runs)
        place = shown(folder.resolve())
        print(f"sweep: {place}  (again: node-run compare {place})", file=sys.stderr)
    elif jobs:
        journal.begin(folder)
        remove_trace(folder)
    if isinstance(failure, KeyboardInterrupt):
        again = f"the same command with sweep={folder.name} goes on, and skips what is done"
        print(f"node-run: interrupted; {again}", file=sys.stderr)
        return 130
    counts = {status: sum(job.status == status for job in jobs) for status in ("failed", "refused")}
    if not any(counts.values()):
        return 0 if failure is None else report(failure)
    parts = " and ".join(f"{count} {status}" for status, count in counts.items() if count)
    first, name = next(pair for pair in zip(jobs, journal.names(jobs), strict=True) if pair[0].status in counts)
    print(f"node-run: of {len(jobs)} jobs, {parts}; the first, {name}: {first.reason}", file=sys.stderr)
    return 2 if counts["refused"] else 1


def draw_sweep(runs: Sequence[Compared], folder: Path) -> None:
    """Draw the runs of the sweep in `folder` beside each other."""
    from node_runner.cli.compare.figure import draw_comparison

    file = folder / "comparison.png"
    try:
        draw_comparison(runs, file)
    except DataError as error:
        print(f"no figure: {error}", file=sys.stderr)
    else:
        print(f"figure: {shown(file.resolve())}", file=sys.stderr)


def say_winner(runs: Sequence[Compared]) -> None:
    """Name the run to go on with."""
    found = winner(runs)
    if found is not None:
        run, seeds = found
        of = f", median of {seeds} seeds" if seeds > 1 else ""
        print(
            f"least val/loss{of}: {run.name}",
            f"longer: node-run resume {run.name} trainer.steps={2 * run.measures.steps}",
            sep="\n",
            file=sys.stderr,
        )


def remove_trace(folder: Path) -> None:
    """Remove what Hydra wrote for a sweep of which no job was run."""
    if folder.is_dir() and os.listdir(folder) == ["multirun.yaml"]:
        (folder / "multirun.yaml").unlink()
        remove_empty(folder)
