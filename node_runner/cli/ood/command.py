"""`node-run ood`: does a density know what it was not fitted to?"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from node_runner.cli.arrays import Array, numpy
from node_runner.cli.found_file import refuse_other_kinds, write_found
from node_runner.cli.ood.figure import draw_scores
from node_runner.cli.ood.foreign import foreign
from node_runner.cli.ood.roc import CAUGHT, area, false_alarms
from node_runner.cli.saved import open_saved, place
from node_runner.cli.tables import Row, show
from node_runner.errors import ConfigError
from node_runner.reporting.console import number
from node_runner.runs.result import title
from node_runner.runs.saved import Saved
from node_runner.views import View


AT_ONCE = 1000
"""Points in one solve."""


@dataclass(frozen=True)
class Scores:
    """Log-densities (N,) of one sample, in nats, and the two scores that call a point foreign where they are high.

    `surprise` is -log p(x). `atypicality` is |log p(x) - mean of log p over the validation part|: in many dimensions
    the likeliest points are none that the density ever gives, so that foreign ones may be too likely as well (Nalisnick
    et al., Detecting Out-of-Distribution Inputs to Deep Generative Models Using Typicality, 2019, with one point).
    """

    log_prob: Array
    usual: float

    @property
    def surprise(self) -> Array:
        """-log p."""
        return -self.log_prob

    @property
    def atypicality(self) -> Array:
        """Distance from the usual log p."""
        distance: Array = np.abs(self.log_prob - self.usual)
        return distance


def ood(
    run: Path, overrides: Sequence[str], against: Sequence[str], count: int, seed: int, which: str, out: Path | None
) -> None:
    """Score test points and foreign ones by their log-density; print how well the scores tell them apart.

    Args:
        run: folder of a run that learned a density.
        overrides: settings to change.
        against: what is foreign: `uniform`, `permuted`, `inverted`, or names of data sets.
        count: points of each, at the most.
        seed: of noise, dequantisation and trace estimates.
        which: checkpoint, "best" or "last".
        out: JSON file to write (None: ood.json in the run's folder); a picture goes beside it.

    Raises:
        ConfigError: no density, no such data, or points of another shape.
        SolveFailed: a solve could not be finished.
    """
    refuse_other_kinds(out)
    saved = open_saved(run, overrides, which)
    experiment = saved.experiment
    if experiment.spec.view is not View.points or not hasattr(experiment.model, "log_prob"):
        raise ConfigError(
            f"{run}: model={experiment.config.model.name} has no log-density; use a run of model=cnf or flow_matching"
        )
    others = {name: foreign(saved, name, count, seed) for name in dict.fromkeys(against)}
    print(title(experiment), file=sys.stderr)
    usual = float(log_densities(saved, experiment.splits.val.x[:count], seed).mean())
    own = Scores(log_densities(saved, experiment.splits.test.x[:count], seed), usual)
    scores = {name: Scores(log_densities(saved, points, seed), usual) for name, (points, _) in others.items()}
    found = {name: compared(own, theirs) for name, theirs in scores.items()}
    mean = number(float(own.log_prob.mean()))
    rows: list[Row] = [("test", str(len(own.log_prob)), mean, "", "", "", "test points of the run")]
    for name, values in found.items():
        rows.append((name, str(len(scores[name].log_prob)), *map(number, values.values()), others[name][1]))
    columns = ("data", "points", "mean log p", "AUROC", "typicality", f"alarms at {CAUGHT:.0%}", "what it is")
    show(columns, rows, numbers=columns[1:-1])
    print("\n".join(notes(own, scores)))
    file = out or saved.folder.path / "ood.json"
    content = {
        "run": place(saved), "checkpoint": which, "overrides": list(overrides), "seed": seed,
        "test": {"points": len(own.log_prob), "mean_log_prob": float(own.log_prob.mean())},
        "validation_mean_log_prob": usual,
        "against": {name: {"what": others[name][1], "points": len(scores[name].log_prob), **values}
                    for name, values in found.items()},
    }  # fmt: skip
    write_found(file, content, draw_scores(own, scores, experiment.spec.dataset))


def log_densities(saved: Saved, x: Tensor, seed: int) -> Array:
    """Log p (N,) in nats of points (N, D), -inf where it is not finite; grey levels dequantised, as for the metrics.

    The noise of dequantisation and of the trace estimate is the same at every call.
    """
    experiment = saved.experiment
    model: Any = experiment.model
    torch.manual_seed(seed)
    found = []
    with torch.no_grad(), experiment.tolerances.evaluation():
        for part in x.split(AT_ONCE):
            points = part.to(experiment.dtype).to(experiment.device)
            if experiment.spec.levels:
                points = points + torch.rand_like(points)
            found.append(numpy(model.log_prob(points)))
    values: Array = np.concatenate(found)
    values[~np.isfinite(values)] = -np.inf
    return values


def compared(own: Scores, theirs: Scores) -> dict[str, float]:
    """Mean log p of foreign points, the areas under the curves of both scores, and the false alarms of the first."""
    return {
        "mean_log_prob": float(theirs.log_prob.mean()),
        "auroc": area(own.surprise, theirs.surprise),
        "auroc_typicality": area(own.atypicality, theirs.atypicality),
        "false_alarms": false_alarms(own.surprise, theirs.surprise),
    }


def notes(own: Scores, scores: dict[str, Scores]) -> list[str]:
    """What the columns mean, and a warning where foreign points are likelier than those of the data."""
    lines = [
        "AUROC: probability that a foreign point has a lower log p than a test point; 0.5 is chance",
        "typicality: the same of |log p - its mean over validation|; alarms: test points called foreign where "
        f"{CAUGHT:.0%} of the foreign ones are",
    ]
    mean = own.log_prob.mean()
    likelier = [name for name, theirs in scores.items() if theirs.log_prob.mean() > mean]
    if likelier:
        lines.append(
            f"on average likelier than the test points themselves: {', '.join(likelier)}; a density may favour simpler "
            "data (Nalisnick et al., Do Deep Generative Models Know What They Don't Know?, 2019)"
        )
    return lines
