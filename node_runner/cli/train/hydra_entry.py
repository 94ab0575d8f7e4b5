"""Runs Hydra behind the command line, and words what goes wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import hydra

from node_runner.cli.completion import is_query
from node_runner.cli.explain import report
from node_runner.cli.leaving import Leaving
from node_runner.cli.train import job, sweep
from node_runner.config import config_path, refuse_non_names
from node_runner.errors import ConfigError, did_you_mean


FLAGS = (
    "--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--resolve", "--package", "-p", "--run", "-r",
    "--multirun", "-m", "--shell-completion", "-sc", "--config-path", "-cp", "--config-name", "-cn",
    "--config-dir", "-cd", "--experimental-rerun", "--info", "-i",
)  # fmt: skip
"""Hydra's own."""

VALUES = {
    "--cfg": ("job", "hydra", "all"),
    "--info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
}
"""What may follow a flag."""

ALONE = ("--multirun", "-m", "--resolve", "--run", "-r")
"""Flags that nothing follows."""


def run_hydra(arguments: Sequence[str], commands: Sequence[str] = ()) -> int:
    """Compose, check and run what `arguments` say; the exit code.

    0 done, 1 a run failed, 2 the user's mistake, 130 Ctrl-C. With HYDRA_FULL_ERROR=1 errors come
    with their traceback.
    """
    job.failure = None
    sweep.Begin.folder = None
    entry = hydra.main(version_base="1.3", config_path=config_path(), config_name="config")(job.run)
    failure: BaseException | None = None
    try:
        _check_flags(arguments)
        refuse_non_names(arguments)
        with _as_program(arguments), job.composing:
            job.composing.enter_context(Leaving(job.leave_nothing))
            entry()
    except BrokenPipeError:
        raise
    except (KeyboardInterrupt, Exception) as error:
        if is_query(arguments):
            return 1
        failure = error
    if sweep.Begin.folder is not None:
        return sweep.conclude(sweep.Begin.folder, failure)
    failure = failure or job.failure
    return 0 if failure is None else report(failure, commands)


def _check_flags(arguments: Sequence[str]) -> None:
    """Refuse what Hydra's parser would answer with a page of usage."""
    for argument, following in zip(arguments, [*arguments, ""][1:], strict=True):
        flag, _, value = argument.partition("=")
        known = any(name == flag or (flag.startswith("--") and name.startswith(flag)) for name in FLAGS)
        if flag.startswith("-") and not known:
            raise ConfigError(f"{flag}: no such flag; {did_you_mean(flag, FLAGS)}")
        choices = VALUES.get({"-c": "--cfg", "-i": "--info"}.get(flag, flag))
        value = value or following
        if choices and value not in choices and (flag in ("--cfg", "-c") or value.isalpha()):
            raise ConfigError(f"{flag} {value}: {did_you_mean(value, choices)}")


@contextmanager
def _as_program(arguments: Sequence[str]) -> Iterator[None]:
    """Hydra reads sys.argv. It prints errors and exits unless told to raise them, and then they can be worded here.

    Its parser does not find a flag between two overrides, so flags come first.
    """
    argv, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = ["node-run", *sorted(arguments, key=lambda argument: argument not in ALONE)]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        sys.argv = argv
        if full is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full
