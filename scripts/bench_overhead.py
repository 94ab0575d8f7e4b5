"""What does a run cost above a bare training loop that is written out by hand, in time per step?

    python scripts/bench_overhead.py                              # every problem
    python scripts/bench_overhead.py --problems spiral --rounds 3

Method. In one process the two loops take turns, the order changing from round to round. Every round trains
from the same initial weights for the same steps. The bare loop is `bare_loop` in this script: PyTorch and
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
import itertools
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from recording import BENCHMARKS, Record, mnist_missing, parse
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchdiffeq import odeint, odeint_adjoint

from node_runner.assemble import Experiment, assemble
from node_runner.config import RunConfig, compose_run, resolved
from node_runner.reporting import LOGGERS
from node_runner.reporting.console import ConsoleProgress
from node_runner.reporting.figures.style import LEARNED, TRUE, clean, sheet, style
from node_runner.reporting.run_folder import MetricsFile, RunFolder
from node_runner.run import make_trainer
from node_runner.runtime import synchronise
from node_runner.types import View


PROBLEMS: dict[str, list[str]] = {
    "spiral": ["dataset=spiral", "model=node"],
    "oscillator": ["dataset=oscillator", "model=node", "trainer.window=null"],
    "mnist": ["dataset=mnist", "model=node", "trainer.batch_size=64"],
    "two_moons": ["dataset=two_moons", "model=cnf"],
}
"""Overrides of the default run: windows of 10 points, whole trajectories of 100, a classifier, a flow."""

ADJOINTS = ("off", "on")
STEPS = {"spiral": (200, 40), "oscillator": (100, 20), "mnist": (200, 100), "two_moons": (60, 20)}
"""In a round, with adjoint=off and on: some seconds of each, and whole lines of metrics."""

BAR = 1.03


# --- the bare loop: PyTorch and torchdiffeq ----------------------------------------------------------


class Perceptron(nn.Module):
    """f(t, y) of a multilayer perceptron that does not see the time."""

    def __init__(self, dim: int, width: int, depth: int, activation: type[nn.Module]) -> None:
        super().__init__()
        sizes = [dim, *[width] * depth]
        hidden: list[nn.Module] = []
        for n, m in itertools.pairwise(sizes):
            hidden += [nn.Linear(n, m), activation()]
        self.layers = nn.Sequential(*hidden, nn.Linear(sizes[-1], dim))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.layers(y)


class Squash(nn.Module):
    """(W x + b) * sigmoid(g t + c) + h t."""

    def __init__(self, n: int, m: int) -> None:
        super().__init__()
        self.linear = nn.Linear(n, m)
        self.gate = nn.Linear(1, m)
        self.shift = nn.Linear(1, m, bias=False)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return self.linear(x) * torch.sigmoid(self.gate(t)) + self.shift(t)


class Flow(nn.Module):
    """The field of a flow in the plane and minus its divergence, as in torchdiffeq's examples/cnf.py."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.hidden = nn.ModuleList(Squash(n, m) for n, m in itertools.pairwise([2, *[width] * depth]))
        self.last = Squash(width, 2)

    def forward(self, t: Tensor, state: Tensor) -> Tensor:
        with torch.enable_grad():
            z = state[:, :2]
            if not z.requires_grad:
                z.requires_grad_(True)
            time = t.reshape(1, 1)
            dz = z
            for layer in self.hidden:
                dz = torch.tanh(layer(time, dz))
            dz = self.last(time, dz)
            trace = z.new_zeros(len(z))
            for i in range(2):
                trace = trace + torch.autograd.grad(dz[:, i].sum(), z, create_graph=True)[0][:, i]
            return torch.cat((dz, trace.unsqueeze(1)), dim=1)


class Classifier(nn.Module):
    """Encoder, field, head."""

    def __init__(self, pixels: int, hidden: int, state: int, classes: int, field: nn.Module) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(pixels, hidden), nn.ReLU(), nn.Linear(hidden, state))
        self.field = field
        self.head = nn.Linear(state, classes)


@dataclass
class Bare:
    """A model without the runner.

    Attributes:
        module: with all parameters.
        field: the part of it that is integrated; the counting round puts a counter around it.
        loss: of one batch.
    """

    module: nn.Module
    field: nn.Module
    loss: Callable[[Bare, Any], Tensor]


def bare_loop(
    bare: Bare,
    batches: Sequence[Any],
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    final: float,
    decay: float | None,
) -> list[Tensor]:
    """Adam with a cosine schedule and a moving average of the weights; the loss of each step."""
    total = len(batches)
    optimizer = torch.optim.Adam(bare.module.parameters(), lr=lr, betas=betas, eps=eps)
    schedule = LambdaLR(optimizer, lambda step: final + (1 - final) * (1 + math.cos(math.pi * step / total)) / 2)
    average = AveragedModel(bare.module, multi_avg_fn=get_ema_multi_avg_fn(decay)) if decay else None
    losses = []
    for batch in batches:
        optimizer.zero_grad(set_to_none=True)
        loss = bare.loss(bare, batch)
        loss.backward()
        optimizer.step()
        schedule.step()
        if average is not None:
            average.update_parameters(bare.module)
        losses.append(loss.detach())
    return losses


def without_time(state: tuple[Tensor, ...]) -> Tensor:
    """The largest RMS of the state, its adjoint and the gradients; the first part, of the time, does not count."""
    return max(part.abs().pow(2).mean().sqrt() for part in state[1:])


def make_bare(experiment: Experiment) -> Bare:
    """The model of an experiment, written out, with the same weights."""
    config, spec, device, dtype = experiment.config, experiment.spec, experiment.device, experiment.dtype
    mean, std = spec.mean.to(device, dtype), spec.std.to(device, dtype)
    how: dict[str, Any] = {
        "method": config.solver.name, "rtol": config.tolerance.rtol, "atol": config.tolerance.atol,
    }  # fmt: skip
    solve = odeint
    if config.adjoint.name == "on":
        solve = odeint_adjoint
        how["adjoint_options"] = {"norm": without_time}
    times = torch.tensor([0.0, getattr(config.model, "end_time", 1.0)], device=device, dtype=dtype)

    def trajectory_loss(bare: Bare, batch: Any) -> Tensor:
        ys = solve(bare.field, (batch.ys[0] - mean) / std, batch.ts, **how) * std + mean
        return ((ys[1:] - batch.ys[1:]) / std).pow(2).mean()

    def label_loss(bare: Bare, batch: Any) -> Tensor:
        ys = solve(bare.field, bare.module.encoder((batch.x - mean) / std), times, **how)
        return F.cross_entropy(bare.module.head(ys[-1]), batch.y)

    def flow_loss(bare: Bare, batch: Any) -> Tensor:
        start = torch.cat(((batch.x - mean) / std, batch.x.new_zeros(len(batch.x), 1)), dim=1)
        end = solve(bare.field, start, times, **how)[-1]
        z, gained = end[:, :2], end[:, 2]
        base = -0.5 * (z.pow(2).sum(dim=1) + 2 * math.log(2 * math.pi))
        return -(base + gained - std.log().sum()).mean()

    field: nn.Module
    if spec.view is View.points:
        module = field = Flow(config.field.width, config.field.depth)
        loss = flow_loss
    else:
        activation = {"silu": nn.SiLU, "tanh": nn.Tanh}[config.field.activation.value]
        labelled = spec.view is View.labelled
        dim = config.model.state if labelled else spec.numel
        module = field = Perceptron(dim, config.field.width, config.field.depth, activation)
        loss = trajectory_loss
        if labelled:
            module = Classifier(spec.numel, config.model.encoder_width, dim, spec.num_classes, field)
            loss = label_loss
    module.to(device, dtype)
    with torch.no_grad():
        for own, other in zip(module.parameters(), experiment.model.parameters(), strict=True):
            assert own.shape == other.shape
            own.copy_(other)
    return Bare(module, field, loss)


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


class Scalars:
    """A logger as a reporter of the loop, as in `node_runner.run`."""

    def __init__(self, logger: Any) -> None:
        self.scalars = logger.scalars

    def begin(self, step: int, total: int) -> None:
        """Nothing to do."""

    def step(self, step: int) -> None:
        """Nothing to do."""


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
        metrics = MetricsFile(folder.metrics, fresh=True)
        loggers = [LOGGERS.build(item, folder.path, 0) for item in config.logger.values()]
        watch = Stopwatch(experiment.device)
        trainer.reporters = [metrics, ConsoleProgress(live=False), *map(Scalars, loggers), watch]
        for logger in loggers:
            logger.begin(resolved(config))
        gc.collect()
        state = trainer.train()
        metrics.close()
        for logger in loggers:
            logger.close()
    if state.status != "completed":  # the trainer has caught a Ctrl-C
        raise KeyboardInterrupt
    evaluations = round(state.totals["nfe_forward"] + state.totals["nfe_backward"])
    return Outcome(watch.ended - watch.began, state.last["train/loss"], evaluations)


def measure(name: str, adjoint: str, options: argparse.Namespace) -> dict[str, Any]:
    """Both loops on one problem, round by round; fails if they did not do the same work."""
    steps = options.steps or STEPS[name][ADJOINTS.index(adjoint)]
    overrides = [*PROBLEMS[name], f"adjoint={adjoint}", f"device={options.device}", f"trainer.steps={steps}"]
    # Validations (and the checkpoints that follow them) come after the last step only.
    overrides += ["trainer.epochs=null", f"trainer.eval_every={steps + 1}", "trainer.eval_batch_size=100000"]
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
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--adjoints", nargs="+", choices=ADJOINTS, default=list(ADJOINTS))
    parser.add_argument("--rounds", type=int, default=7, help="of both loops (default: %(default)s)")
    parser.add_argument("--steps", type=int, help=f"in a round (default, with adjoint=off and on: {STEPS})")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options, record = parse(__doc__, __file__, arguments, parser, BENCHMARKS / "overhead")
    if options.quick:
        options.rounds, options.steps = 1, 2
    results, left_out = [], []
    for name in options.problems:
        reason = mnist_missing() if name == "mnist" else None
        if reason:
            left_out.append(f"Left out: {name}, since {reason}.")
            continue
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
