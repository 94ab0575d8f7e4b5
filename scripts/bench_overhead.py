"""What does a run cost above a bare training loop that is written out by hand, in time per step?

    python scripts/bench_overhead.py                              # every problem
    python scripts/bench_overhead.py --problems spiral --rounds 3

Method. In one process the two loops take turns, the order changing from round to round. Every round trains
from the same initial weights for the same steps. The bare loop is `bare_loop` in bare_loops.py: PyTorch and
torchdiffeq alone, nothing counted, nothing logged, its batches made before the clock starts. The runner is its
`Trainer`, as `node-run` uses it: metrics.jsonl, console and TensorBoard at the default pace of a line every 20
steps, batches made as they are asked for, gradient norms and evaluations counted. Validation and checkpoints are
left out by validating after the last step only, when the clock has stopped. With adjoint=on the bare loop calls
`odeint_adjoint`, told to leave the gradient for the time out of its error norm, as the runner does: nobody asks for
it, and with it the two would take other steps. A further, untimed round counts the evaluations of the bare loop; the
runner must have asked for exactly as many and reached the same loss, or the script fails. The garbage collector is
off while a clock runs.

Reading. The ratio is the runner's time over that of the bare loop in the same round: median, smallest and
largest of all rounds. 1.03 is the bar: at most 3 % for counting, logging and everything else.

Limits. The ratio is largest where the field is smallest, since what the runner adds to an evaluation does not
grow with the batch: these problems are small on purpose. With adjoint=on the backward solves are two programs:
torchdiffeq's carries a tuple with a gradient for the time in it, the runner's one vector without, so that a ratio
below 1 is possible. It is one machine and one version of each package; a ratio whose smallest and largest rounds
lie far apart was disturbed by other work.
"""

from __future__ import annotations

import argparse
import gc
import math
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from bare_loops import bare_loop, make_bare
from matplotlib.figure import Figure
from recording import BENCHMARKS, Record, parse
from torch import Tensor, nn
from training_runs import RUNS, available

from node_runner.assemble import assemble
from node_runner.config import RunConfig, compose_run
from node_runner.reporting.figures.style import LEARNED, TRUE, clean, sheet, style
from node_runner.reporting.run_folder import RunFolder
from node_runner.runs.reports import Reports
from node_runner.runs.result import Ending, make_result
from node_runner.runs.run import make_trainer
from node_runner.runtime import synchronise


ADJOINTS = ("off", "on")
STEPS = {"spiral": (200, 40), "oscillator": (100, 20), "mnist": (200, 100), "two_moons": (60, 20)}
"""In a round, with adjoint=off and on: some seconds of each, and whole lines of metrics."""

BAR = 1.03


# --- one measurement ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """A round: seconds, the mean loss of the last line of metrics, evaluations of the field."""

    seconds: float
    loss: float
    evaluations: int | None


class Counted(nn.Module):
    """A field that counts what is asked of it."""

    def __init__(self, field: nn.Module) -> None:
        super().__init__()
        self.field = field
        self.evaluations = 0

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        self.evaluations += 1
        return self.field(t, y)


class Stopwatch:
    """A reporter that reads the clock when training begins and when the last step's line is written."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.total = 0
        self.began = self.ended = 0.0

    def begin(self, step: int, total: int) -> None:
        self.total = total
        synchronise(self.device)
        self.began = time.perf_counter()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Nothing to do."""

    def step(self, step: int) -> None:
        if step == self.total:
            synchronise(self.device)
            self.ended = time.perf_counter()


def run_bare(config: RunConfig, count: bool = False) -> Outcome:
    """One round of the bare loop."""
    experiment = assemble(config)
    steps = config.trainer.steps
    assert steps is not None
    _, batch = experiment.task.batches(experiment.splits.train, config.trainer, config.seed, lambda step: step / steps)
    batches = [batch(step) for step in range(steps)]
    bare = make_bare(experiment)
    counted = Counted(bare.field)
    if count:
        bare.field = counted
    optimizer, schedule = config.optimizer, config.schedule
    gc.collect()
    synchronise(experiment.device)
    began = time.perf_counter()
    losses = bare_loop(
        bare, batches, lr=optimizer.lr, betas=(optimizer.beta1, optimizer.beta2), eps=optimizer.eps,
        final=schedule.final, decay=config.trainer.average,
    )  # fmt: skip
    synchronise(experiment.device)
    seconds = time.perf_counter() - began
    last = torch.stack(losses[-(steps % config.trainer.log_every or config.trainer.log_every) :])
    return Outcome(seconds, float(last.double().mean()), counted.evaluations if count else None)


def run_trainer(config: RunConfig) -> Outcome:
    """One round of the runner's own loop."""
    experiment = assemble(config)
    with tempfile.TemporaryDirectory() as name:
        folder = RunFolder(Path(name))
        trainer = make_trainer(experiment, folder)
        reports, watch = Reports(folder, config, 0, fresh=True, live=False), Stopwatch(experiment.device)
        trainer.reporters = [*reports.reporters, watch]
        gc.collect()
        state = trainer.train()
        reports.close(make_result(experiment, trainer, Ending(state.status, state.reason)))
    if state.status != "completed":  # the trainer has caught a Ctrl-C
        raise KeyboardInterrupt
    evaluations = round(state.totals["nfe_forward"] + state.totals["nfe_backward"])
    return Outcome(watch.ended - watch.began, state.last["train/loss"], evaluations)


def measure(name: str, adjoint: str, options: argparse.Namespace) -> dict[str, Any]:
    """Both loops on one problem, round by round; fails if they did not do the same work."""
    steps = options.steps or STEPS[name][ADJOINTS.index(adjoint)]
    overrides = [*RUNS[name], "engine=torchdiffeq", f"adjoint={adjoint}", f"device={options.device}"]
    # Validations (and the checkpoints that follow them) come after the last step only.
    overrides += [f"trainer.steps={steps}", "trainer.epochs=null", f"trainer.eval_every={steps + 1}"]
    overrides += ["trainer.eval_batch_size=100000"]
    if name == "mnist":
        overrides += ["dataset.val=100", "dataset.test=100"]
    if options.quick:
        overrides += ["trainer.batch_size=16", "trainer.window=10"]
    config = compose_run(overrides)
    counted, first = run_bare(config, count=True), run_trainer(config)
    same = math.isclose(counted.loss, first.loss, rel_tol=1e-4) and counted.evaluations == first.evaluations
    if not same:
        raise SystemExit(
            f"{name}, adjoint={adjoint}: the loops did different work: loss {counted.loss} and {first.loss}, "
            f"evaluations {counted.evaluations} and {first.evaluations}"
        )
    bare: list[float] = []
    runner: list[float] = []
    gc.disable()
    try:
        for turn in range(options.rounds):
            pair = [(bare, run_bare), (runner, run_trainer)]
            for seconds, loop in pair if turn % 2 == 0 else pair[::-1]:
                seconds.append(loop(config).seconds)
    finally:
        gc.enable()
    return {
        "problem": name,
        "adjoint": adjoint,
        "steps": steps,
        "evaluations_per_step": counted.evaluations / steps if counted.evaluations else None,
        "loss_bare": counted.loss,
        "loss_runner": first.loss,
        "bare_ms": [1000 * value / steps for value in bare],
        "runner_ms": [1000 * value / steps for value in runner],
        "ratios": [b / a for a, b in zip(bare, runner, strict=True)],
    }


# --- report -------------------------------------------------------------------------------------------


def row(result: Mapping[str, Any]) -> dict[str, Any]:
    """One line of the table."""
    ratios = result["ratios"]
    return {
        "problem": result["problem"],
        "adjoint": result["adjoint"],
        "steps a round": result["steps"],
        "evaluations a step": result["evaluations_per_step"],
        "bare, ms a step": statistics.median(result["bare_ms"]),
        "runner, ms a step": statistics.median(result["runner_ms"]),
        "ratio": f"{statistics.median(ratios):.3f}",
        "smallest": f"{min(ratios):.3f}",
        "largest": f"{max(ratios):.3f}",
        f"at most {BAR:g}": statistics.median(ratios) <= BAR,
        "loss, relative difference": abs(result["loss_runner"] / result["loss_bare"] - 1),
    }


def draw(results: Sequence[Mapping[str, Any]]) -> Figure:
    """Ratio of each round, and the medians."""
    with style():
        figure = sheet(6.4, 0.9 + 0.42 * len(results), "Time of the runner over that of a bare loop")
        axes = clean(figure.add_subplot(), grid=True)
        for place, result in enumerate(results):
            ratios = result["ratios"]
            axes.plot(ratios, [place] * len(ratios), "o", color=TRUE, markersize=4)
            axes.plot(statistics.median(ratios), place, "|", color=LEARNED, markersize=18, markeredgewidth=2.5)
        axes.axvline(1, color="0.3", linewidth=0.8)
        axes.axvline(BAR, color="0.3", linewidth=0.8, linestyle="--")
        axes.set_yticks(range(len(results)), [f"{r['problem']}, adjoint={r['adjoint']}" for r in results])
        axes.set_xlabel(f"ratio (points: rounds, bars: medians, dashed: the bar of {BAR:g})")
        axes.set_ylim(len(results) - 0.5, -0.5)
    return figure


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--problems", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--adjoints", nargs="+", choices=ADJOINTS, default=list(ADJOINTS))
    parser.add_argument("--rounds", type=int, default=7, help="of both loops (default: %(default)s)")
    parser.add_argument("--steps", type=int, help=f"in a round (default, with adjoint=off and on: {STEPS})")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options, record = parse(__doc__, __file__, arguments, parser, BENCHMARKS / "overhead")
    if options.quick:
        options.rounds, options.steps = 1, 2
    names, left_out = available(options.problems)
    results = []
    for name in names:
        for adjoint in options.adjoints:
            result = measure(name, adjoint, options)
            results.append(result)
            print(", ".join(f"{key}: {value}" for key, value in row(result).items()), flush=True)
    report(record, results, left_out, options)
    return 0


def report(record: Record, results: list[dict[str, Any]], left_out: list[str], options: argparse.Namespace) -> None:
    """Write the README."""
    missed = [f"{r['problem']} with adjoint={r['adjoint']}" for r in results if statistics.median(r["ratios"]) > BAR]
    verdict = f"The bar of {BAR:g} is " + (f"missed by {', '.join(missed)}." if missed else "met by all.")
    lines = [f"{options.rounds} rounds. {verdict}", *left_out]
    record.add("Result", "\n".join(lines), [row(result) for result in results], {"ratios": draw(results)})
    record.write(results, torch.device(options.device), "float32")


if __name__ == "__main__":
    raise SystemExit(main())
