"""What a person sees in the terminal while a run goes on, and at its end."""

from __future__ import annotations

import logging
import shlex
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text


CONSOLE = Console(stderr=True, highlight=False)
"""Progress and messages go to stderr; stdout is for what was asked for."""

DONE = "all steps done"
"""Why most runs end, which needs no word."""

log = logging.getLogger("node_runner")


def handler(level: int = logging.NOTSET) -> logging.Handler:
    """The log handler of a run: shares the terminal with the progress bar, plain lines elsewhere."""
    if CONSOLE.is_terminal:
        return RichHandler(level, console=CONSOLE, show_time=False, show_level=False, show_path=False)
    return logging.StreamHandler()


class Validations:
    """One line a validation, of the latest figures.

    Args:
        say: is given the line.
    """

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say = say
        self.latest: dict[str, float] = {}
        self._total = 0

    def begin(self, step: int, total: int) -> None:
        """Know how far it goes."""
        self._total = total

    def step(self, step: int) -> None:
        """Nothing to do."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Say a line, if there was a validation."""
        self.latest.update(values)
        if "val/loss" in values:
            shown = ("train/loss", *(k for k in values if k.startswith("val/") and k != "val/nfe"), "nfe/forward",
                     "time/step_ms")  # fmt: skip
            self._say(f"step {step:{len(str(self._total))}d}/{self._total}  {describe(self.latest, shown)}")


class ConsoleProgress:
    """A progress bar on a terminal; elsewhere one line a validation.

    Args:
        live: draw the bar (parallel jobs of a sweep do not).
    """

    def __init__(self, *, live: bool = True) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(), TimeRemainingColumn(), console=CONSOLE, transient=True, refresh_per_second=4,
            disable=not (live and CONSOLE.is_terminal),
        )  # fmt: skip
        self._task = self._progress.add_task("training", total=None, figures="")
        self._validations = Validations(lambda line: log.info("%s", line))

    def begin(self, step: int, total: int) -> None:
        """Show the bar."""
        self._validations.begin(step, total)
        self._progress.update(self._task, completed=step, total=total)
        self._progress.start()

    def step(self, step: int) -> None:
        """Move the bar."""
        if not self._progress.disable:
            self._progress.update(self._task, completed=step)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Show the latest figures; print a line for a validation."""
        self._validations.scalars(step, values)
        latest = self._validations.latest
        self._progress.update(self._task, figures=describe(latest, ("train/loss", "val/loss", "nfe/forward")))

    def close(self) -> None:
        """Take the bar away."""
        self._progress.stop()


MEANINGS = {
    "nfe/forward": "evaluations of the field per step",
    "nfe/backward": "evaluations per step, in the gradient",
    "solver/accepted": "accepted solver steps per optimiser step",
    "solver/rejected": "rejected solver steps per optimiser step",
    "solver/stiffness": "step x fastest decay of a mode",
    "memory/peak_mb": "peak above the baseline",
    "memory/saved_mb": "kept by autograd for one backward",
    "time/step_ms": "per optimiser step",
    "time/solve_share": "of the step in the solve and its gradient",
    "accuracy": "of the labels are right",
    "mse": "squared error, data's units",
    "relative_rmse": "RMS error / RMS of the truth",
    "interpolation_mse": "squared error, up to the last seen",
    "extrapolation_mse": "squared error after it",
    "extrapolation_rmse": "RMS error after it, data's units",
    "reconstruction_mse": "squared error at what was seen",
    "energy_drift": "largest change / first energy",
    "heat_drift": "largest change / first heat",
    "parameter_error": "largest error / true value",
    "event_time_error": "mean error, units of time",
    "event_count_error": "mean error of the number",
    "nll": "nats, -log likelihood",
    "entropy": "nats, of the true density: the least nll",
    "exact_nll": "nats, of the true law",
    "marginal_w1": "of values drawn, from the true law",
    "increment_w1": "of steps drawn, from the true law",
    "forecast_w1": "of values forecast, from the true law",
    "drift_error": "RMS error / RMS of the true drift",
    "diffusion_error": "RMS error / RMS of the true diffusion",
    "coverage": "of the values are in 90 % of the draws",
    "bits_per_dim": "bits per dimension",
    "loss": "what training minimises",
    "nfe": "evaluations for a batch",
}
"""What a metric means, by its name or by the part behind the slash."""

UNITS = {"memory/peak_mb": "MiB", "memory/saved_mb": "MiB", "time/step_ms": "ms"}
SHARES = ("accuracy", "coverage", "time/solve_share")

COST = (
    "nfe/forward", "nfe/backward", "solver/accepted", "solver/rejected", "solver/stiffness", "memory/peak_mb",
    "memory/saved_mb", "time/step_ms", "time/solve_share",
)  # fmt: skip


def meaning(name: str) -> str:
    """A few words on a metric."""
    return MEANINGS.get(name) or MEANINGS.get(name.rsplit("/", 1)[-1], "")


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


def quantity(name: str, value: Any) -> str:
    """A metric's value with its unit."""
    if name in SHARES and isinstance(value, int | float):
        return f"{100 * value:.4g} %"
    return f"{number(value)} {UNITS.get(name, '')}".rstrip()


def duration(seconds: float) -> str:
    """A time as a person says it."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def summary(result: Mapping[str, Any], folder: Path, figures: list[str]) -> None:
    """What a person wants to know at the end of a run: how good, at what cost, and where everything is.

    Args:
        result: what stands in result.json.
        folder: of the run.
        figures: names of those that were drawn.
    """
    CONSOLE.print()
    for line in table(result, CONSOLE.width if CONSOLE.is_terminal else None):
        CONSOLE.print(line, soft_wrap=True)
    CONSOLE.print()
    for name, text in places(result, folder, figures):
        CONSOLE.print(Text(f"{name:<13}", style="bold").append(text, style="not bold"), soft_wrap=True)


def table(result: Mapping[str, Any], room: int | None = None) -> list[Text]:
    """One line a metric, in groups: quality by part, cost, size.

    Args:
        result: what stands in result.json.
        room: columns of the terminal (None: any number). Where the values of all parts leave too few for words beside
            them, the words stand below.
    """
    metrics, totals = result["metrics"], result["totals"]
    head = f"{totals['steps']:.0f} steps in {duration(totals['seconds_total'])}"
    best = f", best val/loss at step {result['best_step']}" if "val/loss" in metrics else ""
    lines = [Text(f"{result['title']}: {result['status']}", style="bold"), Text(head + best)]
    parts = list(dict.fromkeys(key.partition("/")[0] for key in metrics if key.startswith(("test", "val"))))
    parts.sort(key=lambda part: (part.startswith("val"), part))
    names = dict.fromkeys(key.partition("/")[2] for part in parts for key in metrics if key.startswith(f"{part}/"))
    if "nll" in names:
        names.pop("loss", None)  # the same number
    if parts:
        width = max(11, *(len(part) + 2 for part in parts))
        first = max(16, *(len(name) + 3 for name in names))
        lines.append(_line("quality", parts, "", first=first, width=width, style="bold"))
        truth = result.get("truth", {})
        about = {name: f"true value {number(truth[name])}" if name in truth else meaning(name) for name in names}
        beside = room is None or first + width * len(parts) + 2 + max(map(len, about.values())) <= room
        for name, words in about.items():
            values = [quantity(name, metrics.get(f"{part}/{name}")) for part in parts]
            lines.append(_line(f"  {name}", values, words if beside else "", first=first, width=width))
        if room is not None and not beside:
            said = "; ".join(f"{name}: {words}" for name, words in about.items() if words)
            lines += [
                Text(line, style="dim")
                for line in textwrap.wrap(said, max(room, 20), initial_indent="  ", subsequent_indent="  ")
            ]
    shown = [key for key in COST if key in metrics and (metrics[key] or key != "solver/rejected")]
    if shown:
        lines.append(Text("cost", style="bold"))
        lines += [_line(f"  {key}", [quantity(key, metrics[key])], meaning(key), first=18) for key in shown]
    lines.append(Text("size", style="bold"))
    lines.append(_line("  parameters", [f"{result['parameters']:,}"], "trainable numbers", first=18))
    return lines


def places(result: Mapping[str, Any], folder: Path, figures: list[str]) -> list[tuple[str, str]]:
    """(name, text): why the run ended, where its files are, and commands that go on from here."""
    run = str(folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder)
    word = shlex.quote(run)
    found = [] if result["reason"] == DONE else [("ended", result["reason"])]
    found += [("advice", sentence) for sentence in result.get("advice", [])]
    found.append(("results", run))
    if figures:
        found.append(("figures", f"in figures/: {', '.join(figures)}"))
    if any(folder.glob("events.out.tfevents.*")):
        found.append(("TensorBoard", f"node-run board {word}"))
    if result["status"] == "interrupted":
        return found  # the command line says how to go on, as its last word
    found.append(("next", f"node-run evaluate {word}"))
    if "test/accuracy" not in result["metrics"]:
        found.append(("", f"node-run sample {word}"))
    return found


def _line(name: str, values: list[str], about: str, *, first: int, width: int = 11, style: str = "") -> Text:
    """A name, right-aligned values, and a few words in dim letters."""
    line = Text(f"{name:<{first}}", style=style)
    line.append("".join(f"{value:>{width}}" for value in values))
    return line.append(f"  {about}", style="dim") if about else line
