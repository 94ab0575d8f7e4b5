"""`node-run resume`: go on with a run, in its own folder."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from node_runner.cli.runs import find_run
from node_runner.cli.train.job import execute
from node_runner.errors import ConfigError
from node_runner.reporting.console import handler
from node_runner.runs.config_file import load_run


log = logging.getLogger("node_runner")

MAY_CHANGE = ("trainer", "logger", "figures")


def resume(run: Path, overrides: Sequence[str]) -> None:
    """Go on from the last checkpoint. Without overrides the run ends as if it had never stopped.

    Args:
        run: folder of the run.
        overrides: of trainer.*, loggers and formats of figures.

    Raises:
        ConfigError: no such run, or other overrides.
        RunError: the run could not finish.
        Interrupted: by Ctrl-C.
    """
    folder = find_run(run)
    for override in overrides:
        group = override.split("=", 1)[0].split(".", 1)[0]
        if group not in MAY_CHANGE:
            raise ConfigError(
                f"{override}: a run that goes on may change trainer.*, logger and figures only, or it would no "
                f"longer be one run; train a new one: node-run {override} ..."
            )
    config = load_run(folder.config, overrides)
    before = folder.result.stat().st_mtime_ns if folder.completed() else None
    with _logging_to(folder.path / "run.log"):
        execute(config, folder.path, resume=True, live=True)
        if before == folder.result.stat().st_mtime_ns and any(each.startswith("figures") for each in overrides):
            log.info("figures of a finished run are drawn by: node-run figures %s --formats pdf,svg", run)


@contextmanager
def _logging_to(file: Path) -> Iterator[None]:
    """Messages go where they went when Hydra started the run: to the terminal and to run.log."""
    log = logging.getLogger("node_runner")
    level = log.level
    log.setLevel(logging.INFO)
    handlers = (handler(), logging.FileHandler(file, encoding="utf-8", delay=True))
    for one in handlers:
        one.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(one)
    try:
        yield
    finally:
        log.setLevel(level)
        for one in handlers:
            log.removeHandler(one)
            one.close()
