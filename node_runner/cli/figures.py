"""`node-run figures`: the pictures of finished runs, drawn again from their best weights."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from node_runner.cli.explain import shown
from node_runner.cli.runs import find_runs
from node_runner.errors import NodeRunnerError
from node_runner.reporting.run_folder import RunFolder
from node_runner.runs.run import draw_figures
from node_runner.runs.saved import restore


def figures(places: Sequence[str], formats: str | None, device: str | None) -> int:
    """Draw each run's figures into its folder, and print their names.

    A run that cannot be drawn is named in one line, and the others are drawn all the same.

    Args:
        places: runs, folders of runs, or patterns.
        formats: such as "pdf,svg" (None: those of the run).
        device: such as "cpu" (None: that of the run).

    Returns:
        How many runs could not be drawn.

    Raises:
        ConfigError: a place holds no run.
    """
    overrides = [*([f"figures=[{formats}]"] if formats else []), *([f"device={device}"] if device else [])]
    failed = 0
    for folder in find_runs(places):
        at = shown(folder.path.resolve())
        try:
            names = _draw(folder, overrides)
        except NodeRunnerError as error:
            print(f"node-run: {at}: {error}", file=sys.stderr)
            failed += 1
        else:
            print(f"{at / 'figures'}: {', '.join(names) or 'nothing to draw'}")
    return failed


def _draw(folder: RunFolder, overrides: Sequence[str]) -> list[str]:
    saved = restore(folder, overrides, "best")
    return draw_figures(saved.experiment, folder, saved.recorded)
