"""Which of the runs of a sweep is the one to go on with."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from node_runner.cli.compare.compared import Compared
from node_runner.cli.compare.seeds import without_seeds


def winner(runs: Sequence[Compared]) -> tuple[Compared, int] | None:
    """The run to go on with, and of how many seeds it is the median.

    It is of the choice whose completed runs have the least median val/loss: validation data choose, test data only
    measure. Runs that are bound to their solver count only where all are.

    Returns:
        None where there is nothing to choose between, or where losses are of different data.
    """
    chosen = without_seeds(list(runs[0].choices))
    if not chosen or any(key.partition(".")[0] == "dataset" for key in chosen):
        return None
    ended = [run for run in runs if run.measures.status == "completed" and "val/loss" in run.measures.quality]
    sets: dict[tuple[Any, ...], list[Compared]] = {}
    for run in [run for run in ended if run.measures.apart is None] or ended:
        sets.setdefault(tuple(run.choices[key] for key in chosen), []).append(run)
    if len(sets) < 2:
        return None
    best = min(sets.values(), key=lambda alike: statistics.median(map(_loss, alike)))
    return sorted(best, key=_loss)[(len(best) - 1) // 2], len(best)


def _loss(run: Compared) -> float:
    return run.measures.quality["val/loss"]
