"""`node-run robustness`: how runs bear noise on their inputs, side by side."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from node_runner.cli.choices import differing
from node_runner.cli.found_file import refuse_other_kinds, write_found
from node_runner.cli.measures import QUALITY
from node_runner.cli.members import common_folder, refuse_unfinished
from node_runner.cli.robustness.figure import draw_robustness
from node_runner.cli.runs import find_runs
from node_runner.cli.saved import open_saved, place
from node_runner.cli.tables import Row, show
from node_runner.errors import ConfigError
from node_runner.reporting.console import number
from node_runner.reporting.run_folder import RunFolder
from node_runner.runs.run import make_trainer
from node_runner.runs.saved import Saved
from node_runner.views import DataSpec, Labelled, Series, View


LEVELS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
"""Standard deviations of the noise, as shares of the training data's."""


def robustness(
    places: Sequence[str], levels: Sequence[float], draws: int, seed: int, which: str, out: Path | None
) -> None:
    """Print the quality of runs on test data with noise of each level; write JSON, and a picture beside it.

    Runs that differ in their seed alone are one contestant. All see the same noise.

    Args:
        places: runs, folders of runs, or patterns.
        levels: of the noise (none: `LEVELS`).
        draws: of the noise at each level, over which the results are means.
        seed: of the noise.
        which: checkpoint, "best" or "last".
        out: JSON file to write (None: robustness.json in the folder that holds the runs).

    Raises:
        ConfigError: runs on different data, that learned a density or a process, or that are not complete.
        SolveFailed: a solve could not be finished.
    """
    refuse_other_kinds(out)
    chosen = sorted(set(levels or LEVELS))
    for level in chosen:
        if not 0 <= level < math.inf:
            raise ConfigError(f"--level {level:g}: expected 0 or more, a share of the data's standard deviation")
    contestants = open_contestants(places, which)
    runs = [run for _, run in contestants]
    curves: dict[str, list[list[float]]] = {}
    metric = ""
    for name, run in contestants:
        print(place(run), file=sys.stderr)
        metric, values = under_noise(run, chosen, draws, seed)
        curves.setdefault(name, []).append(values)
    results = {name: np.array(values) for name, values in curves.items()}  # (runs, levels)
    rows: list[Row] = [
        (f"{level:g}", *(_cell(values[:, place]) for values in results.values())) for place, level in enumerate(chosen)
    ]
    show(("noise", *results), rows, title=f"test/{metric}", numbers=("noise", *results))
    counts = ", ".join(f"{name}: {len(values)} run{'s' * (len(values) > 1)}" for name, values in results.items())
    drawn = f"{draws} draw{'s' * (draws > 1)} ({counts})"
    print(f"noise: Gaussian, its deviation as a share of the training data's; means over {drawn}")
    file = out or common_folder([run.folder for run in runs]) / "robustness.json"
    content: dict[str, Any] = {
        "metric": metric, "levels": chosen, "draws": draws, "seed": seed, "checkpoint": which,
        "mean": {name: values.mean(axis=0).tolist() for name, values in results.items()},
        "runs": {place(run): name for name, run in contestants}, "by_run": curves,
    }  # fmt: skip
    write_found(file, content, draw_robustness(runs[0].experiment.spec.dataset, metric, chosen, results))


def open_contestants(places: Sequence[str], which: str) -> list[tuple[str, Saved]]:
    """The runs in the given places with their weights, each with the name of the contestant that it belongs to.

    Raises:
        ConfigError: runs on different data, that learned a density or a process, or that are not complete.
    """
    folders = find_runs(places)
    refuse_unfinished(folders)
    choices = differing([folder.config for folder in folders])
    data = next((key for key in choices[0] if key.split(".")[0] == "dataset"), None)
    if data is not None:
        first, other, *_ = dict.fromkeys(str(run[data]) for run in choices)
        raise ConfigError(f"these runs have {data}={first} and {data}={other}; name runs on the same data")
    names = [contestant(run, folder) for run, folder in zip(choices, folders, strict=True)]
    runs = [open_saved(folder.path, [], which) for folder in folders]
    refuse_others(runs)
    return list(zip(names, runs, strict=True))


def contestant(choices: dict[str, Any], folder: RunFolder) -> str:
    """What tells a run from those that differ in more than the seed."""
    words = ", ".join(f"{key}={value}" for key, value in choices.items() if key != "seed" and value is not None)
    return words or ("all seeds" if "seed" in choices else folder.path.name)


def refuse_others(runs: Sequence[Saved]) -> None:
    """Refuse runs that learned different tasks, or a task without an answer to be wrong about.

    Raises:
        ConfigError: what they learned.
    """
    views = list(dict.fromkeys(run.experiment.spec.view for run in runs))
    if len(views) > 1:
        raise ConfigError(
            f"these runs learned from {views[0].value} and {views[1].value}; name runs that learned from the same"
        )
    model = runs[0].experiment.config.model.name
    if views[0] is View.points:
        raise ConfigError(f"model={model} learned a density, which has no answer to be wrong about; see `node-run ood`")
    if views[0] is View.processes:
        raise ConfigError(
            f"model={model} learned the law of a process, which has no answer to be wrong about; "
            "name runs on trajectories, series or classes"
        )


def under_noise(run: Saved, levels: Sequence[float], draws: int, seed: int) -> tuple[str, list[float]]:
    """The metric that runs are compared by, and its value at each level, mean over the draws."""
    experiment = run.experiment
    trainer = make_trainer(experiment, run.folder)
    test = experiment.splits.test
    metric, values = "", []
    for level in levels:
        found = []
        for draw in range(draws if level else 1):
            generator = torch.Generator().manual_seed(seed + draw)
            metrics = trainer.evaluate(noisy(test, level, experiment.spec, generator))
            metric = next(name for name in QUALITY if name in metrics)
            found.append(metrics[metric])
        values.append(float(np.mean(found)))
    return metric, values


def noisy(part: Any, level: float, spec: DataSpec, generator: torch.Generator) -> Any:
    """A part with Gaussian noise on what a model is given: examples, first states, or observed values.

    What predictions are held against stays as it is. Pixels may leave their range.

    Args:
        part: labelled examples, trajectories or series.
        level: standard deviation, as a share of the training data's (axis by axis where they have axes).
        spec: of the data.
        generator: of the noise, on the CPU.
    """

    def added(x: Tensor) -> Tensor:
        noise = torch.randn(x.shape, generator=generator, dtype=torch.float64) * spec.std.cpu()
        return x + level * noise.to(x.dtype).to(x.device)

    if isinstance(part, Labelled):
        return replace(part, x=added(part.x))
    if isinstance(part, Series):
        return replace(part, ys=added(part.ys), truth=part.target)
    return replace(part, ys=torch.cat((added(part.ys[:, :1]), part.ys[:, 1:]), dim=1))


def _cell(values: Any) -> str:
    """The mean over runs, and their standard deviation where there are at least three."""
    if len(values) < 3:
        return number(float(values.mean()))
    return f"{number(float(values.mean()))} ± {values.std(ddof=1):.1g}"
