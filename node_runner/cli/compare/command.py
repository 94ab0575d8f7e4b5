"""`node-run compare`: runs side by side."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from node_runner.cli import journal
from node_runner.cli.compare.compared import Compared, choice_text, read_compared, short_keys
from node_runner.cli.compare.seeds import over_seeds
from node_runner.cli.measures import HIGHER, quality_names
from node_runner.cli.tables import Cell, show
from node_runner.reporting.console import number


COSTS = {
    "nfe_forward": "evaluations of the field per optimiser step, forward, mean over the run",
    "nfe_backward": "evaluations per optimiser step for the gradient, mean over the run",
    "saved_mb": "MiB that autograd keeps for one backward",
    "peak_mb": "MiB above the baseline, peak",
    "ms_step": "ms per optimiser step, mean over the run",
    "seconds": "training time in seconds, validations included",
}
"""What a run cost, by column."""


def compare(places: Sequence[str], csv_file: Path | None, as_json: bool, plot: Path | None) -> list[Compared]:
    """Print a table of runs: the choices in which they differ, then quality and cost.

    Args:
        places: runs, folders of runs, or patterns.
        csv_file: write all figures to this file.
        as_json: print JSON in place of the table.
        plot: draw how the losses fell, and quality over cost, to this file.

    Returns:
        The runs.

    Raises:
        ConfigError: a place that holds no run.
    """
    runs = read_compared(places)
    quality = quality_names([run.measures for run in runs])
    parameters = list(dict.fromkeys(name for run in runs for name in run.measures.parameters))
    records = [_record(run, quality, parameters) for run in runs]
    if csv_file is not None:
        _write_csv(csv_file, records)
    if plot is not None:
        from node_runner.cli.compare.figure import draw_comparison

        draw_comparison(runs, plot)
        print(f"plot: {plot}", file=sys.stderr)
    if as_json:
        print(json.dumps(records, indent=2))
        return runs
    _print(runs, records, quality, parameters)
    for place in places:
        jobs = journal.read(Path(place))
        for job, name in zip(jobs, journal.names(jobs), strict=True) if jobs else ():
            if job.status == "refused":
                print(f"{name}: refused: {job.reason}")
    return runs


def _record(run: Compared, quality: Sequence[str], parameters: Sequence[str]) -> dict[str, Any]:
    """Everything that is known of a run, by column."""
    found = run.measures
    return {
        "run": run.name,
        **run.choices,
        **{key: found.quality.get(key) for key in quality},
        **{key: found.parameters.get(key) for key in parameters},
        **{key: found.costs.get(key) for key in COSTS},
        "steps": found.steps,
        "status": found.status,
        "reason": found.reason,
    }


def _print(runs: Sequence[Compared], records: list[dict[str, Any]], quality: list[str], parameters: list[str]) -> None:
    chosen = list(runs[0].choices)
    measured = [*quality, *parameters, *(key for key in COSTS if any(record[key] is not None for record in records))]
    # Errors and costs on different data are no better or worse than each other.
    comparable = [] if "dataset" in chosen else [key for key in measured if key not in parameters]
    best = {key: _best(key, records) for key in comparable}
    # What all names have in common stands above the table.
    common = _common([record["run"] for record in records])
    rows: list[list[str | Cell]] = []
    for record in records:
        row: list[str | Cell] = [choice_text(record[key]) for key in chosen]
        for key in measured:
            value = number(record[key])
            row.append(Cell(value) if record[key] is not None and record[key] == best.get(key) else value)
        rows.append([*row, record["status"], record["run"].removeprefix(common)])
    columns = [*short_keys(chosen), *measured, "status", "run"]
    if not sys.stdout.isatty():
        show(columns, rows, title=common.rstrip("/"), numbers=measured)
    else:
        # Names are long: on a terminal they stand below, by number.
        numbered = [[str(number), *row[:-1]] for number, row in enumerate(rows, 1)]
        show(["#", *columns[:-1]], numbered, title=common.rstrip("/"), numbers=["#", *measured])
        print("\n".join(f"{number:>3}  {row[-1]}" for number, row in enumerate(rows, 1)))
    seeds, spreads = over_seeds(records, chosen, [*quality, *parameters])
    if spreads:
        print()
        show(
            short_keys(seeds),
            [[choice_text(cell) for cell in row] for row in spreads],
            title="median (least to greatest) over seeds",
        )
    if any(isinstance(cell, Cell) for row in rows for cell in row) and not sys.stdout.isatty():
        print("* the best of its column", file=sys.stderr)
    for record in records:
        if record["status"] != "completed":
            print(f"{record['run'].removeprefix(common)}: {record['status']}: {record['reason']}")
    for run in runs:
        if run.measures.apart is not None:
            metric, own, accurate = run.measures.apart
            name, both = run.name.removeprefix(common), f"{own:.4g}, and {accurate:.4g} solved accurately"
            print(f"{name}: val/{metric} is {both}: bound to its solver")


def _best(key: str, records: list[dict[str, Any]]) -> Any:
    """The best value of a column; None where there is nothing to choose between."""
    values = [record[key] for record in records if record[key] is not None and record["status"] == "completed"]
    if len(set(values)) < 2:
        return None
    return max(values) if key.rsplit("/", 1)[-1] in HIGHER else min(values)


def _common(names: list[str]) -> str:
    """The folders that all names begin with, with a closing slash."""
    parts = [name.split("/")[:-1] for name in names]
    shared = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return "".join(f"{part}/" for part in shared)


def _write_csv(file: Path, records: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, list(records[0]))
        writer.writeheader()
        writer.writerows(records)
    print(f"csv: {file}", file=sys.stderr)
