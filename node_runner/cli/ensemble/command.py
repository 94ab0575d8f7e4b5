"""`node-run ensemble`: what runs of several seeds say together, and how far they can be believed."""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from node_runner.cli.ensemble import averaged, forecasts
from node_runner.cli.ensemble.figures import draw_forecast, draw_votes
from node_runner.cli.found_file import refuse_other_kinds, write_found
from node_runner.cli.members import common_folder, open_members
from node_runner.cli.saved import place
from node_runner.cli.tables import Row, show
from node_runner.errors import ConfigError, SolveFailed
from node_runner.reporting.console import number
from node_runner.runs.result import title
from node_runner.runs.saved import Saved
from node_runner.views import View


@dataclass(frozen=True)
class Findings:
    """What is printed, written and drawn."""

    columns: Sequence[str]
    rows: Sequence[Row]
    notes: Sequence[str]
    content: dict[str, Any]
    figure: Figure


def ensemble(places: Sequence[str], level: float, until: float | None, which: str, out: Path | None) -> None:
    """Print how good the members are alone and together; write the figures as JSON, and a picture beside it.

    Args:
        places: runs, folders of runs, or patterns.
        level: probability with which a band is to hold the truth.
        until: time up to which trajectories are forecast.
        which: checkpoint, "best" or "last".
        out: JSON file to write (None: ensemble.json in the folder that holds the members).

    Raises:
        ConfigError: runs that are no ensemble, or that learned a density or a process; a level that is no probability.
        SolveFailed: a test part could not be solved by a member.
    """
    if not 0 < level < 1:
        raise ConfigError(f"--band {level:g}: expected a probability between 0 and 1, such as 0.9")
    if until is not None and not 0 < until < math.inf:
        raise ConfigError(f"--until {until:g}: expected a time above 0")
    refuse_other_kinds(out)
    members = open_members(places, which)
    first = members[0].experiment
    view = first.spec.view
    if view in (View.points, View.processes):
        learned = "a density" if view is View.points else "the law of a process"
        raise ConfigError(
            f"model={first.config.model.name} learned {learned}, which has no prediction to average; "
            "ensembles are of runs on trajectories, series or classes"
        )
    if until is not None and view is not View.trajectories:
        raise ConfigError(f"--until is for trajectories, and these runs learned {view.value}")
    seeds = [member.experiment.config.seed for member in members]
    print(f"{len(members)} members, seeds {', '.join(map(str, seeds))}: {title(first)}", file=sys.stderr)
    classes = view in (View.labelled, View.paths)
    findings = _classes(members) if classes else _forecasts(members, level, until)
    show(findings.columns, findings.rows, numbers=findings.columns[1:])
    print("\n".join(findings.notes))
    file = out or common_folder([member.folder for member in members]) / "ensemble.json"
    runs = [place(member) for member in members]
    write_found(file, {"runs": runs, "seeds": seeds, "checkpoint": which, **findings.content}, findings.figure)


def _tests(members: Sequence[Saved]) -> list[str]:
    return [name for name, part in members[0].experiment.splits.tests.items() if len(part)]


def _forecasts(members: Sequence[Saved], level: float, until: float | None) -> Findings:
    names = _tests(members)
    found: dict[str, forecasts.Forecast] = {}
    for name in names:
        try:
            found[name] = forecasts.predict(members, name, until if name == names[-1] else None)
        except SolveFailed as error:
            if name == "test":
                raise
            print(f"{name} could not be predicted: {error}", file=sys.stderr)
    measured = dict(found)
    for name, forecast in found.items():
        later = forecast.beyond()
        if later is not None:
            measured[f"{name}, t > {forecast.horizon:g}"] = later
    scores = {name: forecasts.score(forecast, level) for name, forecast in measured.items()}
    rows = [
        (name, *map(number, (s["rmse_mean"], statistics.mean(s["rmse_members"]), min(s["rmse_members"]),
                             s["spread"], s["spread_over_error"])), f"{s['coverage']:.1%}")
        for name, s in scores.items()
    ]  # fmt: skip
    columns = ("part", "rmse of mean", "of members", "of the best", "spread", "spread / error", f"in {level:.0%} band")
    notes = [
        "errors and spread in the data's units; spread / error: 1 where the truth is like one more member, below 1 "
        "where members agree on what is wrong",
        f"band: mean ± t std sqrt(1 + 1/{len(members)}), with Student's t of {len(members) - 1} degrees of freedom",
    ]
    curves = {name: [forecasts.coverage(f, at) for at in forecasts.LEVELS] for name, f in measured.items()}
    times = {name: {key: v.tolist() for key, v in forecasts.over_time(f).items()} for name, f in found.items()}
    content = {"band": level, "parts": scores, "nominal": forecasts.LEVELS, "coverage": curves, "over_time": times}
    figure = draw_forecast(list(found.items())[-1], curves, members[0].experiment.spec, level)
    return Findings(columns, rows, notes, content, figure)


def _classes(members: Sequence[Saved]) -> Findings:
    votes = {name: averaged.vote(members, name) for name in _tests(members)}
    scores = {name: averaged.score(each) for name, each in votes.items()}
    rows: list[Row] = []
    for name, s in scores.items():
        for key in ("accuracy", "nll", "ece"):
            alone = s[f"{key}_members"]
            best = max(alone) if key == "accuracy" else min(alone)
            rows.append((f"{name}/{key}", *map(number, (s[key], statistics.mean(alone), best))))
    notes = [f"ensemble: the mean of the members' probabilities; ece: calibration error in {averaged.BINS} bins"]
    figure = draw_votes(votes["test"], members[0].experiment.spec.dataset)
    return Findings(("metric", "ensemble", "members", "best of them"), rows, notes, {"parts": scores}, figure)
