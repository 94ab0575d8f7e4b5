"""Runs Hydra behind the command line, and words what goes wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from unittest.mock import patch

import hydra

from node_runner.cli import job
from node_runner.cli.explain import explain
from node_runner.config import config_path
from node_runner.errors import RunError


def run_hydra(arguments: Sequence[str], commands: Sequence[str] = ()) -> int:
    """Compose, check and run what `arguments` say; the exit code.

    0 done, 1 the run failed, 2 the user's mistake, 130 Ctrl-C. With HYDRA_FULL_ERROR=1 errors are
    raised as they are.
    """
    entry = hydra.main(version_base="1.3", config_path=config_path(), config_name="config")(job.run)
    full = os.environ.get("HYDRA_FULL_ERROR") == "1"
    try:
        # Hydra would print the error and exit; raised, it can be worded here.
        with patch.object(sys, "argv", ["node-run", *arguments]), patch.dict(os.environ, HYDRA_FULL_ERROR="1"):
            entry()
    except KeyboardInterrupt:
        print("node-run: interrupted; `node-run resume RUN` goes on", file=sys.stderr)
        return 130
    except Exception as error:
        line = None if full else explain(error, commands)
        if line is None:
            raise
        print(f"node-run: {line}", file=sys.stderr)
        return 1 if isinstance(error, RunError) else 2
    return 0
