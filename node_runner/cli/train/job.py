"""What Hydra runs: one run, or one job of a sweep."""

from __future__ import annotations

import math
from contextlib import ExitStack
from pathlib import Path
from typing import cast

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from node_runner.cli.explain import Interrupted, interrupted, out_of_memory
from node_runner.cli.leaving import Leaving
from node_runner.config import RunConfig, register_schemas, to_run
from node_runner.errors import ConfigError


# Workers of a parallel launcher import this module afresh, and need schemas and resolvers too.
register_schemas()

composing = ExitStack()
"""Closed when a job or a sweep begins. Until then Ctrl-C ends the program at once: Hydra's imports may swallow it."""

failure: Exception | None = None
"""Why the run failed. Kept here, since Hydra would print a line of its own for an error that is raised."""


def run(config: DictConfig) -> float:
    """Run one job; its val/loss is what a sweeper minimises."""
    global failure
    composing.close()
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    if hydra.mode is RunMode.MULTIRUN:
        from node_runner.cli.train.sweep import run_job

        return run_job(config, folder, hydra)
    try:
        return execute(to_run(config), folder, live=True)
    except Exception as error:
        failure = error
        if isinstance(error, ConfigError) or out_of_memory(error) or interrupted(error):
            forget(folder)
        return math.nan


def execute(config: RunConfig, folder: Path, *, resume: bool = False, live: bool = False) -> float:
    """Train, and report the val/loss.

    Raises:
        Interrupted: by Ctrl-C.
        NodeRunnerError: see `node_runner.runs.run.run`.
    """
    try:
        with Leaving(lambda: forget(folder)):
            from node_runner.runs.run import run as train

        result = train(config, folder, resume=resume, live=live)
    except KeyboardInterrupt:
        if not forget(folder):
            raise Interrupted(folder) from None
        raise
    if result["status"] == "interrupted":
        raise Interrupted(folder)
    value = result["metrics"].get("val/loss")
    return math.nan if value is None else float(value)


def leave_nothing() -> None:
    """Remove what Hydra has written before the job begins."""
    if (config := HydraConfig.instance().cfg) is not None:
        folder = OmegaConf.select(cast(DictConfig, config), "hydra.runtime.output_dir")
        if folder and Path(folder).is_dir():
            forget(Path(folder))


def forget(folder: Path) -> bool:
    """Remove a run's folder if it holds only what Hydra writes before a run starts; whether it did."""
    if {entry.name for entry in folder.iterdir()} - {".hydra", "run.log"}:
        return False
    written = [folder / ".hydra" / name for name in ("config.yaml", "hydra.yaml", "overrides.yaml")]
    for file in (*written, folder / "run.log"):
        file.unlink(missing_ok=True)
    remove_empty(folder / ".hydra")
    return True


def remove_empty(folder: Path) -> None:
    """Remove an empty folder, and those above it that are empty then, as far as the working folder."""
    here = Path.cwd()
    folder = folder.resolve()
    while folder != here and not any(folder.iterdir()):
        folder.rmdir()
        if here not in folder.parents:
            break
        folder = folder.parent
