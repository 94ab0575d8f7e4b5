"""`node-run bench`: the engines side by side on a run of the user's own."""

from __future__ import annotations

import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from node_runner.assemble import assemble
from node_runner.cli.explain import shown
from node_runner.cli.found_file import refuse_folder
from node_runner.cli.tables import Cell, Row, show
from node_runner.config import RunConfig, compose_run
from node_runner.engines import ENGINES
from node_runner.errors import ConfigError
from node_runner.memory import MB, saved_for_backward
from node_runner.reporting.console import duration, number
from node_runner.reporting.run_folder import RunFolder
from node_runner.runs.rehearsal import rehearse
from node_runner.runs.result import title
from node_runner.runs.run import make_trainer
from node_runner.runtime import environment, set_up, synchronise
from node_runner.training.loop import Trainer


REFERENCE = "torchdiffeq"
ROUNDS = 5
ROUND_S = 0.3
"""Seconds that a round of each engine is to take, at the least one step."""
WARM_UP = 6
"""Steps at the most in which an engine may come to rest."""


@dataclass
class Measured:
    """One engine on the run.

    Attributes:
        engine: its name.
        ms: median milliseconds of an optimiser step; smallest, largest: of the rounds.
        first_s: seconds of the first step beyond a usual one: compilation, and the first use of memory.
        nfe_forward, nfe_backward: evaluations in the first step.
        saved_mb: MiB kept from the forward pass for the gradient.
        difference: of the first step's gradient from the reference's, relative to its norm.
        refused: why the engine cannot serve the run; everything else is nan then.
    """

    engine: str
    ms: float = math.nan
    smallest: float = math.nan
    largest: float = math.nan
    first_s: float = math.nan
    nfe_forward: float = math.nan
    nfe_backward: float = math.nan
    saved_mb: float = math.nan
    difference: float = math.nan
    refused: str = ""


def bench(overrides: Sequence[str], engines: Sequence[str], save: Path | None) -> None:
    """Measure the training step of a run with each engine, and print a table and a recommendation.

    Args:
        overrides: of the run, as for training.
        engines: names (none: that of the run beside the reference, or all where it is auto).
        save: JSON file to write.

    Raises:
        ConfigError: no such engine, a run that no engine can serve, or a folder for a file.
    """
    refuse_folder("--save", save)
    for name in engines:
        ENGINES.signature(name)
    config = compose_run(overrides)
    names = list(engines) or chosen(config)
    names.sort(key=lambda name: name != REFERENCE)
    print(heading(config), file=sys.stderr)
    results, total = measure(config, names)
    if all(result.refused for result in results):
        raise ConfigError(results[0].refused)
    rows, notes = table(results)
    columns = ("engine", "ms a step", "rounds", "speed-up", "first step, s", "NFE forward", "NFE backward",
               "kept, MiB", "gradient differs by")  # fmt: skip
    show(columns, rows, numbers=columns[1:])
    for note in [*notes, recommendation(results, total)]:
        print(note)
    if save is not None:
        device, dtype = set_up(config.device, config.seed)
        content = {"overrides": list(overrides), "environment": environment(device, dtype, config.seed),
                   "results": [asdict(result) for result in results]}  # fmt: skip
        save.parent.mkdir(parents=True, exist_ok=True)
        save.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        print(f"saved: {shown(save)}", file=sys.stderr)


def chosen(config: RunConfig) -> list[str]:
    """The engine that a run asks for and the reference; all that there are where the choice is left to auto."""
    if config.engine.name == "auto":
        return [name for name in ENGINES.names() if name != "auto"]
    return list(dict.fromkeys((REFERENCE, config.engine.name)))


def with_engine(config: RunConfig, name: str) -> RunConfig:
    """The run with an engine: its own, as it is set, or another one as it is by default."""
    return config if config.engine.name == name else replace(config, engine=ENGINES.schema(name)())


def heading(config: RunConfig) -> str:
    """What is measured, and how."""
    return (
        f"{title(assemble(config))}\noptimiser steps as training takes them, engines in turn, {ROUNDS} rounds, medians"
    )


def measure(config: RunConfig, names: Sequence[str]) -> tuple[list[Measured], int]:
    """Each engine measured on the same weights and batches, and the number of steps of the run.

    The first step of each, which compiles, is timed apart; then the engines take turns in rounds of steps.
    """
    results, total = [], 0
    trainers: dict[str, Trainer] = {}
    reference: torch.Tensor | None = None
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            result = Measured(name)
            results.append(result)
            try:
                experiment = assemble(with_engine(config, name))
                trainer = make_trainer(experiment, RunFolder(Path(folder) / name))
                rehearsal = rehearse(experiment, trainer.batch, trainer.total)
            except ConfigError as error:
                result.refused = str(error)
                continue
            began = time.perf_counter()
            rehearsal.prepare()
            gradient = first_step(trainer, result, config.seed)
            result.first_s = time.perf_counter() - began
            if name == REFERENCE:
                reference = gradient
            if reference is not None:
                result.difference = float((gradient - reference).norm() / reference.norm())
            trainers[name], total = trainer, trainer.total
        warm = {name: settled(trainer) for name, trainer in trainers.items()}
        times = rounds(trainers, {name: max(1, round(ROUND_S / steps[-1])) for name, steps in warm.items()})
    for result in results:
        if result.engine in times:
            ms = times[result.engine]
            result.ms, result.smallest, result.largest = statistics.median(ms), min(ms), max(ms)
            # What is compiled at the second step belongs to it.
            begun = [result.first_s, *warm[result.engine]]
            result.first_s = max(0.0, sum(begun) - len(begun) * result.ms / 1000)
    return results, total


def first_step(trainer: Trainer, result: Measured, seed: int) -> torch.Tensor:
    """The gradient of the first batch, flat, without an update; what it cost is written into `result`."""
    torch.manual_seed(seed)  # the same noise for every engine
    trainer.model.train()
    with saved_for_backward(trainer.model) as saved:
        out = trainer.task.step(trainer.model, trainer.batch(0))
    out.loss.backward()
    result.nfe_forward = sum(stats.nfe_forward for stats in out.solves)
    result.nfe_backward = sum(stats.nfe_backward for stats in out.solves)
    result.saved_mb = saved.mb + sum(stats.kept_bytes for stats in out.solves) / MB
    gradients = [p.grad.reshape(-1) for p in trainer.parameters if p.grad is not None]
    return torch.cat(gradients).double().clone()


def settled(trainer: Trainer) -> list[float]:
    """Seconds of each step until one takes as long as the one before: an engine may compile at its second step too."""
    found = [seconds(trainer, 1)]
    while len(found) < WARM_UP:
        found.append(seconds(trainer, 1))
        if 1 / 3 < found[-1] / found[-2] < 3:
            break
    return found


def rounds(trainers: dict[str, Trainer], steps: dict[str, int]) -> dict[str, list[float]]:
    """Milliseconds of a step in each round, by engine; the engines take turns, so that all see the same machine."""
    ms: dict[str, list[float]] = {name: [] for name in trainers}
    for _ in range(ROUNDS):
        for name, trainer in trainers.items():
            ms[name].append(1000 * seconds(trainer, steps[name]))
    return ms


def seconds(trainer: Trainer, steps: int) -> float:
    """Seconds of a step, mean of so many."""
    began = time.perf_counter()
    for _ in range(steps):
        trainer.optimise(measure_saved=False)
        trainer.state.step = (trainer.state.step + 1) % trainer.total
    synchronise(trainer.device)
    return (time.perf_counter() - began) / steps


def table(results: Sequence[Measured]) -> tuple[list[Row], list[str]]:
    """Rows, the fastest engine marked, and a line for each one that refused."""
    served = [result for result in results if not result.refused]
    fastest = min(served, key=lambda result: result.ms)
    base = next((result.ms for result in served if result.engine == REFERENCE), math.nan)
    rows: list[Row] = []
    for result in served:
        name: str | Cell = Cell(result.engine) if result is fastest else result.engine
        differs = "reference" if result.engine == REFERENCE else _figure(result.difference, ".1e")
        rows.append((name, number(result.ms), f"{number(result.smallest)} to {number(result.largest)}",
                     _figure(base / result.ms, ".3g", " x"), f"{result.first_s:.1f}", number(result.nfe_forward),
                     number(result.nfe_backward), number(result.saved_mb), differs))  # fmt: skip
    return rows, [result.refused for result in results if result.refused]


def _figure(value: float, form: str, unit: str = "") -> str:
    return "-" if math.isnan(value) else f"{value:{form}}{unit}"


def recommendation(results: Sequence[Measured], total: int) -> str:
    """The engine for a run of `total` steps, and where that would change."""
    served = [result for result in results if not result.refused]

    def seconds(result: Measured) -> float:
        return result.first_s + total * result.ms / 1000

    best = min(served, key=seconds)
    words = f"recommended: engine={best.engine}, {duration(seconds(best))} for the {total} steps of this run"
    base = next((result for result in served if result.engine == REFERENCE and result is not best), None)
    if base is None:
        return words
    words += f" ({REFERENCE}: {duration(seconds(base))})"
    if best.first_s > base.first_s and best.ms < base.ms:
        steps = math.ceil(1000 * (best.first_s - base.first_s) / (base.ms - best.ms))
        words += f"; what it takes to compile is paid back after {steps} step{'s' * (steps != 1)}"
    return words
