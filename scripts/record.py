"""Run a preset and record what came out under experiments/.

Question: does the preset do what its header says, and in what time?

    python scripts/record.py spiral_fit              # one preset
    python scripts/record.py spiral_fit oscillator   # several
    python scripts/record.py --all

Runs `node-run experiment=NAME` as a user would, and writes experiments/NAME/: README.md (question,
command, expectation, machine, date, results), results.json, and the figures of the run (of a sweep:
its comparison, and the figures of its first job). Commands that a preset's header names by `Then`,
separated by semicolons, are run on its runs, {runs}, and leave what they write in {record}.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


ROOT = Path(__file__).resolve().parent.parent
PRESETS = ROOT / "configs" / "experiment"
KEPT = ("choices", "metrics", "totals", "parameters", "best_step", "status", "reason", "config_hash")


def header(name: str) -> dict[str, str]:
    """The lines `# Key: text` at the top of a preset; a line that only goes on belongs to the one before."""
    found: dict[str, str] = {}
    key = ""
    for line in (PRESETS / f"{name}.yaml").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        match = re.match(r"#\s*(Question|Command|Then|Expect|Time):\s*(.*)", line)
        if match:
            key = match[1]
            found[key] = match[2].strip()
        elif key:
            found[key] += " " + line.lstrip("# ").strip()
    return found


def results_below(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """(run folder, content of result.json) of every run below a folder, in the order of their names."""
    return [(file.parent, json.loads(file.read_text())) for file in sorted(folder.rglob("result.json"))]


def record(name: str, extra: list[str]) -> int:
    """Run one preset and write its record; the exit code of the run."""
    about = header(name)
    outputs = ROOT / "outputs" / "presets" / name
    shutil.rmtree(outputs, ignore_errors=True)
    command = [
        sys.executable, "-m", "node_runner.cli.main", f"experiment={name}",
        f"hydra.run.dir={outputs}/run", f"hydra.sweep.dir={outputs}", *extra,
    ]  # fmt: skip
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    began = time.perf_counter()
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    seconds = time.perf_counter() - began
    runs = results_below(outputs)
    if not runs:
        print(f"{name}: no result.json; nothing recorded", file=sys.stderr)
        return code or 1
    target = ROOT / "experiments" / name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    environment = json.loads((runs[0][0] / "environment.json").read_text())
    kept = [{"job": folder.name, **{key: result[key] for key in KEPT}} for folder, result in runs]
    record = {"preset": name, "wall_seconds": round(seconds, 1), "load": load, "environment": environment, "runs": kept}
    (target / "results.json").write_text(json.dumps(record, indent=2) + "\n")
    figures = [*sorted(outputs.glob("*.png")), *sorted((runs[0][0] / "figures").glob("*.png"))]
    for figure in figures:
        shutil.copy(figure, target / figure.name)
    followed = [follow(each.strip(), outputs, target) for each in about.get("Then", "").split(";") if each.strip()]
    names = [figure.name for figure in figures]
    names += sorted(figure.name for figure in target.glob("*.png") if figure.name not in names)
    (target / "README.md").write_text(page(name, about, record, names, followed))
    print(f"{name}: recorded in {target.relative_to(ROOT)}")
    return code


def follow(command: str, runs: Path, target: Path) -> tuple[str, str]:
    """A command on the runs of a preset, as typed, and what it printed.

    Raises:
        CalledProcessError: it failed.
    """
    typed = command.replace("{runs}", str(runs.relative_to(ROOT))).replace("{record}", str(target.relative_to(ROOT)))
    program, *arguments = shlex.split(typed)
    assert program == "node-run", f"Then: expected a command of node-run, got {command}"
    done = subprocess.run(
        [sys.executable, "-m", "node_runner.cli.main", *arguments], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return typed, done.stdout.rstrip()


def page(
    name: str, about: dict[str, str], record: dict[str, Any], figures: list[str], followed: list[tuple[str, str]]
) -> str:
    """The README of a record."""
    environment, runs = record["environment"], record["runs"]
    columns = [key for key in runs[0]["metrics"] if key.startswith(("val", "test")) and not key.endswith("/nfe")]
    columns += ["nfe/forward", "nfe/backward", "memory/saved_mb", "memory/peak_mb", "time/step_ms"]
    columns = [c for c in columns if any(c in run["metrics"] for run in runs)]
    lines = [f"# {name}", "", f"**Question.** {about['Question']}", "", f"**Command.** `{about['Command']}`", ""]
    lines += [f"**Expected.** {about['Expect']} ({about['Time']})", "", "## Result", ""]
    if len(runs) == 1:
        run = runs[0]
        lines += ["| metric | value |", "|---|---|"]
        lines += [f"| {column} | {_number(run['metrics'].get(column))} |" for column in columns]
        lines += [f"| seconds, all told | {_number(run['totals']['seconds_total'])} |"]
        lines += [f"| parameters | {run['parameters']:,} |", ""]
    else:
        lines += [f"| job | status | {' | '.join(columns)} | seconds |", "|" + "---|" * (len(columns) + 3)]
        for run in runs:
            cells = [_number(run["metrics"].get(column)) for column in columns]
            seconds = _number(run["totals"]["seconds_total"])
            lines.append(f"| {run['job']} | {run['status']} | {' | '.join(cells)} | {seconds} |")
        lines.append("")
    for command, printed in followed:
        lines += [f"`{command}`", "", "```", printed, "```", ""]
    lines += [f"![{Path(figure).stem}]({figure})" for figure in figures]
    packages = ", ".join(f"{key} {value}" for key, value in environment["packages"].items())
    lines += [
        "", "## Where it was measured", "",
        f"- date: {datetime.now(UTC):%Y-%m-%d}; wall time of the whole command {record['wall_seconds']} s",
        f"- machine: {environment['device_name']}, {environment['cores']} cores, {environment['threads']} threads",
        f"- load of the machine when it began: {_number(record['load'])} (times are too long where it is above 0)",
        f"- {environment['device']} {environment['dtype']}, seed {environment['seed']}, Python {environment['python']}",
        f"- {packages}",
        f"- node-runner {environment['node_runner']}, commit {(environment['git']['commit'] or 'unknown')[:12]}",
        "", "Written by `scripts/record.py`; the figures are in `results.json` too.", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def main(arguments: list[str] | None = None) -> int:
    """Record the presets that are named; the exit code is 0 if every run succeeded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="*", help="names of files in configs/experiment, without .yaml")
    parser.add_argument("--all", action="store_true", help="every preset")
    parser.add_argument("--override", action="append", default=[], help="an override for each run, such as debug=fast")
    options = parser.parse_args(arguments)
    names = sorted(path.stem for path in PRESETS.glob("*.yaml")) if options.all else options.presets
    if not names:
        parser.error("name a preset, or --all")
    return max([record(name, options.override) for name in names])


if __name__ == "__main__":
    raise SystemExit(main())
