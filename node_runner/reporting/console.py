"""What a person sees in the terminal while a run goes on, and at its end."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

CONSOLE = Console(stderr=True, highlight=False)
"""Progress and messages go to stderr; stdout is for what was asked for."""

log = logging.getLogger("node_runner")


def handler(level: int = logging.NOTSET) -> logging.Handler:
    """The log handler of a run: shares the terminal with the progress bar, plain lines elsewhere."""
    if CONSOLE.is_terminal:
        return RichHandler(level, console=CONSOLE, show_time=False, show_level=False, show_path=False)
    return logging.StreamHandler()


class ConsoleProgress:
    """A progress bar on a terminal; elsewhere one line a validation.

    Args:
        live: draw the bar (parallel jobs of a sweep do not).
    """

    def __init__(self, *, live: bool = True) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(), TimeRemainingColumn(), console=CONSOLE, transient=True,
            disable=not (live and CONSOLE.is_terminal),
        )  # fmt: skip
        self._task = self._progress.add_task("training", total=None, figures="")
        self._latest: dict[str, float] = {}
        self._total = 0

    def begin(self, step: int, total: int) -> None:
        """Show the bar."""
        self._total = total
        self._progress.update(self._task, completed=step, total=total)
        self._progress.start()

    def step(self, step: int) -> None:
        """Move the bar."""
        if not self._progress.disable:
            self._progress.update(self._task, completed=step)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Show the latest figures; print a line for a validation."""
        self._latest.update(values)
        self._progress.update(self._task, figures=describe(self._latest, ("train/loss", "val/loss", "nfe/forward")))
        if "val/loss" in values:
            shown = ("train/loss", *(k for k in values if k.startswith("val/") and k != "val/nfe"), "nfe/forward",
                     "time/step_ms")  # fmt: skip
            log.info("step %*d/%d  %s", len(str(self._total)), step, self._total, describe(self._latest, shown))

    def close(self) -> None:
        """Take the bar away."""
        self._progress.stop()


UNITS = {
    "nfe/forward": "evaluations of the field per step, forward",
    "nfe/backward": "evaluations per step, in the gradient",
    "solver/accepted": "accepted solver steps per optimiser step",
    "solver/rejected": "rejected solver steps per optimiser step",
    "memory/peak_mb": "MiB above the baseline, peak",
    "memory/saved_mb": "MiB kept by autograd for one backward",
    "time/step_ms": "ms per optimiser step",
    "time/solve_share": "share of the step spent in the solve and its gradient",
    "accuracy": "share of correct labels",
    "mse": "mean squared error, in the data's units squared",
    "relative_rmse": "RMS error / RMS of the truth",
    "nll": "nats, negative log-likelihood",
    "bits_per_dim": "bits per dimension",
    "loss": "the loss that was minimised",
    "nfe": "evaluations of the field per solve, in evaluation",
}
"""What a metric means, by its name or by the part behind the slash."""


def meaning(name: str) -> str:
    """One line on a metric."""
    return UNITS.get(name) or UNITS.get(name.rsplit("/", 1)[-1], "")


def describe(values: Mapping[str, float], names: tuple[str, ...]) -> str:
    """`name value` pairs for one line."""
    return "  ".join(f"{name} {number(values[name])}" for name in names if name in values)


def number(value: Any) -> str:
    """A figure as a person reads it."""
    if not isinstance(value, int | float):
        return "-" if value is None else str(value)
    if float(value).is_integer() and abs(value) < 1e7:
        return f"{value:.0f}"
    return f"{value:.4g}"


def summary(result: Mapping[str, Any], folder: Path, figures: list[str]) -> None:
    """The table at the end of a run, and where everything is."""
    metrics: Mapping[str, Any] = result["metrics"]
    table = Table(title=f"{result['title']}: {result['status']}", title_justify="left", header_style="bold")
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column("what it is", style="dim")
    keys = [k for k in metrics if k.startswith("test") and not k.endswith(("/loss", "/nfe"))]
    keys += [k for k in metrics if k.startswith("val/") and not k.endswith(("/loss", "/nfe"))]
    keys += [k for k in ("nfe/forward", "nfe/backward", "memory/peak_mb", "memory/saved_mb", "time/step_ms",
                         "time/solve_share") if k in metrics]  # fmt: skip
    for key in keys:
        table.add_row(key, number(metrics[key]), meaning(key))
    totals = result["totals"]
    table.add_row("seconds", number(totals["seconds_total"]), f"{totals['steps']:.0f} steps, best at {result['best_step']}")
    table.add_row("parameters", f"{result['parameters']:,}", "trainable numbers")
    CONSOLE.print(table)
    if result["reason"]:
        CONSOLE.print(f"ended: {result['reason']}")
    if figures:
        CONSOLE.print(f"figures: {folder / 'figures'} ({', '.join(figures)})", soft_wrap=True)
    CONSOLE.print(f"results: {folder}", soft_wrap=True)
    CONSOLE.print("next:    node-run board   node-run evaluate RUN   node-run compare RUN RUN", soft_wrap=True)
