"""What every benchmark leaves behind: README.md, results.json and figures, with the machine they come from.

A benchmark's docstring is its description. Its first block is the question, the indented block is the
command line, and each of the other blocks begins with its heading and a full stop: "Method. ...".
"""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from node_runner.reporting.run_folder import RunFolder
from node_runner.runtime import environment


ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "experiments" / "benchmarks"

Row = Mapping[str, Any]
"""One line of a table: cell by column heading."""


@dataclass(frozen=True)
class Section:
    """A part of a README: heading, sentences, a table, and files of figures."""

    heading: str
    text: str = ""
    rows: Sequence[Row] = ()
    figures: Sequence[str] = ()


@dataclass
class Record:
    """One measurement, from its command line to the files it leaves.

    Args:
        doc: the docstring of the script.
        script: its file.
        arguments: that it was called with.
        out: the folder to write.
        quick: a smoke run, whose numbers mean nothing.
    """

    doc: str
    script: Path
    arguments: Sequence[str]
    out: Path
    quick: bool
    sections: list[Section] = field(default_factory=list)
    figures: dict[str, Figure] = field(default_factory=dict)
    began: float = field(default_factory=time.perf_counter)
    load: float = field(default_factory=lambda: _load())

    def add(
        self, heading: str, text: str = "", rows: Sequence[Row] = (), figures: Mapping[str, Figure] | None = None
    ) -> None:
        """Append a section. Figures are given by name, and become NAME.png."""
        figures = figures or {}
        self.figures |= figures
        self.sections.append(Section(heading, text, rows, [f"{name}.png" for name in figures]))

    def write(self, results: Any, device: torch.device, precision: str) -> None:
        """Write README.md, results.json and the figures.

        Args:
            results: every number that was measured, in plain containers.
            device: that the measurement ran on.
            precision: of its numbers, in words.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        # The dtype and the seed of a whole run do not apply: a benchmark says its own.
        machine = environment(device, torch.float32, 0)
        for key in ("dtype", "seed"):
            del machine[key]
        machine |= {"precision": precision, "load_before": self.load, "load_after": _load()}
        facts = {
            "question": self.question,
            "command": self.command,
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
            "seconds": time.perf_counter() - self.began,
            "environment": machine,
        }
        folder = RunFolder(self.out)
        folder.write_json(self.out / "results.json", {**facts, "results": results})
        for name, figure in self.figures.items():
            figure.savefig(self.out / f"{name}.png", dpi=120)
        (self.out / "README.md").write_text(self._page(facts), encoding="utf-8")
        print(f"written: {self.out}")

    @property
    def question(self) -> str:
        """The first block of the docstring."""
        return " ".join(_blocks(self.doc)[0].split())

    @property
    def command(self) -> str:
        """How the script was called."""
        return shlex.join(["python", f"scripts/{self.script.name}", *self.arguments])

    def _page(self, facts: Mapping[str, Any]) -> str:
        machine = facts["environment"]
        parts = [f"# {self.script.stem}", f"**Question.** {self.question}", f"**Command.** `{self.command}`"]
        if self.quick:
            parts.insert(1, "**A smoke run: its numbers mean nothing.**")
        for heading, block in _described(self.doc):
            if heading == "Method":
                parts.append(f"**Method.** {block}")
        for section in self.sections:
            parts.append(f"## {section.heading}")
            parts += filter(None, (section.text, markdown(section.rows)))
            parts += [f"![{Path(name).stem}]({name})" for name in section.figures]
        parts += [f"## {heading}\n\n{block}" for heading, block in _described(self.doc) if heading != "Method"]
        parts += ["## Where it was measured", "\n".join(f"- {line}" for line in where(facts, machine))]
        parts.append(f"Written by `scripts/{self.script.name}`; every number is in `results.json`.")
        return "\n\n".join(parts) + "\n"


def where(facts: Mapping[str, Any], machine: Mapping[str, Any]) -> list[str]:
    """Machine, versions, commit and date, a line each."""
    git = machine["git"]
    commit = (git["commit"] or "unknown")[:12] + (" with uncommitted changes" if git["dirty"] else "")
    versions = {name: number for name, number in machine["packages"].items() if number != "not installed"}
    return [
        f"date: {facts['date']}; it took {facts['seconds']:.0f} s",
        f"device: {machine['device']}, {machine['device_name']}; {machine['precision']}",
        f"machine: {machine['processor']}, {machine['cores']} cores, {machine['threads']} torch threads, "
        f"{machine['platform']}",
        f"load average of the machine: {machine['load_before']:.1f} before, {machine['load_after']:.1f} after",
        f"Python {machine['python']}, " + ", ".join(f"{name} {number}" for name, number in versions.items()),
        f"node-runner {machine['node_runner']}, commit {commit}",
    ]


def parse(
    doc: str, script: str, arguments: Sequence[str] | None, parser: argparse.ArgumentParser, out: Path
) -> tuple[argparse.Namespace, Record]:
    """Read a benchmark's command line, with `--quick` and `--out` added to what `parser` knows.

    Args:
        doc, script: docstring and file of the script.
        arguments: of the command line (None: those of this process).
        parser: with the script's own options.
        out: the folder that is written unless `--out` says otherwise.
    """
    parser.description = inspect.cleandoc(doc)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--quick", action="store_true", help="a smoke run: tiny sizes, numbers that mean nothing")
    parser.add_argument("--out", type=Path, default=out, help="folder to write (default: %(default)s)")
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(given)
    return options, Record(doc, Path(script), given, options.out, options.quick)


def mnist_missing() -> str | None:
    """Why MNIST cannot be used here without a download, or None."""
    from node_runner.datasets.mnist import MNIST
    from node_runner.datasets.parts.mnist_files import FILES

    if importlib.util.find_spec("torchvision") is None:
        return "torchvision, which reads MNIST, is not installed"
    raw = MNIST().raw
    missing = [name for name in FILES if not (raw / name).exists()]
    return f"MNIST is not here (set NODE_RUNNER_DATA; {', '.join(missing)} not found)" if missing else None


def markdown(rows: Sequence[Row]) -> str:
    """A table; the columns are those of the first row."""
    if not rows:
        return ""
    columns = list(rows[0])
    right = [isinstance(rows[0][column], int | float) for column in columns]
    lines = [f"| {' | '.join(columns)} |", f"|{'|'.join('---:' if r else '---' for r in right)}|"]
    lines += [f"| {' | '.join(text(row.get(column)) for column in columns)} |" for row in rows]
    return "\n".join(lines)


def text(value: Any) -> str:
    """A cell: numbers with three digits, and a dash for nothing."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"
    return str(value).replace("|", "\\|")


def _blocks(doc: str) -> list[str]:
    return [block for block in inspect.cleandoc(doc).split("\n\n") if block.strip()]


def _described(doc: str) -> list[tuple[str, str]]:
    """(heading, text) of each block of a docstring that has a heading; blocks without one go on."""
    found: list[tuple[str, str]] = []
    for block in _blocks(doc)[1:]:
        if block.startswith("    "):
            continue
        heading, dot, rest = block.partition(". ")
        if dot and heading.count(" ") < 4 and heading[0].isupper() and "\n" not in heading:
            found.append((heading, rest))
        elif found:
            found[-1] = (found[-1][0], f"{found[-1][1]}\n\n{block}")
    return found


def _load() -> float:
    """The machine's load average over the last minute; above the cores in use, timings suffer."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
