"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from node_runner.errors import ConfigError, Diverged
from node_runner.memory import PeakMemory, saved_for_backward
from node_runner.runtime import restore_rng, rng_state, synchronise
from node_runner.settings import TrainerConfig
from node_runner.solving import Tolerances
from node_runner.training import checkpoint
from node_runner.training.interrupt import Interrupt
from node_runner.training.meter import Meter
from node_runner.types import Splits, Task


EVALUATION_SEED = 20_181_219
"""Seeds the noise of evaluations (dequantisation, trace estimates), so that they can be compared."""


class Reporter(Protocol):
    """Hears of a run's progress."""

    def begin(self, step: int, total: int) -> None:
        """Training starts (or goes on) at `step` of `total`."""
        ...

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One line of metrics, by their public names."""
        ...

    def step(self, step: int) -> None:
        """One optimiser step is complete. Must be cheap."""
        ...


@dataclass
class Trained:
    """What training made of a model.

    Attributes:
        status: completed, or interrupted.
        reason: why it ended.
        step: optimiser steps taken; best_step: where val/loss was lowest.
        best: metrics of the best validation.
        last: the latest line of training metrics.
        totals: sums over the whole run: seconds (of optimiser steps), nfe_forward, nfe_backward,
            and seconds_total with validations.
    """

    status: str = "completed"
    reason: str = "all steps done"
    step: int = 0
    best_step: int = 0
    best: dict[str, float] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    totals: dict[str, float] = field(
        default_factory=lambda: {"seconds": 0.0, "seconds_total": 0.0, "nfe_forward": 0.0, "nfe_backward": 0.0}
    )


class Trainer:
    """Trains a model on a task.

    Args:
        model, task, splits: what is trained, how, on what (on the device already).
        optimizer: of the model's parameters.
        make_factor: given the number of steps, the factor on the learning rate for each step.
        tolerances: told of the progress, and switched for evaluation.
        config: lengths and intervals.
        seed: of the batches.
        device: where all of this is.
        checkpoints: folder for last.pt and best.pt.
        reporters: hear of the progress.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        task: Task,
        splits: Splits[Any],
        optimizer: torch.optim.Optimizer,
        make_factor: Callable[[int], Callable[[int], float]],
        tolerances: Tolerances,
        config: TrainerConfig,
        seed: int,
        device: torch.device,
        checkpoints: Path,
        reporters: list[Reporter],
    ) -> None:
        self.model, self.task, self.splits = model, task, splits
        self.optimizer, self.tolerances, self.config = optimizer, tolerances, config
        self.device, self.checkpoints, self.reporters = device, checkpoints, reporters
        # The batches ask for the progress only when one is drawn, and then the total is known.
        self.steps_per_epoch, self.batch = task.batches(splits.train, config, seed, lambda step: step / self.total)
        self.total = total_steps(config, self.steps_per_epoch)
        self.schedule = LambdaLR(optimizer, make_factor(self.total))
        self.average = (
            AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.average)) if config.average else None
        )
        self.state = Trained()
        self.meter = Meter()
        self.bad_evaluations = 0
        self.seconds_of_line = 0.0
        self.peak_mb = 0.0
        self.pending: dict[str, float] = {}
        self.rate = float(self.schedule.get_last_lr()[0])
        self.clock = time.perf_counter()

    def train(self) -> Trained:
        """Train to the end, or until interrupted or stopped early; afterwards the model holds the best weights.

        Raises:
            Diverged: a loss or gradient is not finite.
            SolveFailed: a solve could not be finished.
        """
        state, config = self.state, self.config
        for reporter in self.reporters:
            reporter.begin(state.step, self.total)
        self.memory = PeakMemory(self.device)
        with Interrupt() as interrupt:
            self.clock = time.perf_counter()
            while state.step < self.total and not self.out_of_patience():
                self.tolerances.progress = state.step / self.total
                self.optimise(measure_saved=state.step % config.eval_every == 0)
                state.step += 1
                # An interrupted run writes no line or validation of its own: resumed, it goes on as if
                # it had never been stopped.
                late = state.step < self.total and not interrupt.asked and self.out_of_time()
                final = state.step == self.total or late
                if state.step % config.log_every == 0 or final:
                    self.log()
                for reporter in self.reporters:
                    reporter.step(state.step)
                if state.step % config.eval_every == 0 or final:
                    self.validate()
                if interrupt.asked:
                    state.status, state.reason = "interrupted", "stopped by Ctrl-C or SIGTERM"
                    break
                if late:
                    break
            self.tick()
        self.save("last")
        self.load_best()
        return state

    def optimise(self, measure_saved: bool) -> None:
        """One optimiser step; L-BFGS evaluates loss and gradient several times in it."""
        self.model.train()

        def closure() -> Tensor:
            self.optimizer.zero_grad(set_to_none=True)
            if measure_saved and "memory/saved_mb" not in self.pending:
                with saved_for_backward(self.model) as saved:
                    out = self.task.step(self.model, self.batch(self.state.step))
                self.pending["memory/saved_mb"] = saved.mb
            else:
                out = self.task.step(self.model, self.batch(self.state.step))
            out.loss.backward()
            self.meter.add({**out.scalars, "optim/grad_norm": self.clipped_norm()}, out.solves)
            return out.loss.detach()

        self.optimizer.step(closure)  # type: ignore[arg-type]  # torch wants a float, and means a number
        self.schedule.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        self.meter.end_step()

    def clipped_norm(self) -> Tensor:
        """Norm of the gradient, (); where it is above `grad_clip` the gradient is scaled down to that."""
        if self.config.grad_clip is not None:
            return nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        return nn.utils.get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])

    def log(self) -> None:
        """One line of metrics: the means since the last one. The only host copy of the loop."""
        synchronise(self.device)
        self.tick()
        steps = self.meter.steps
        values = self.meter.means(self.seconds_of_line)
        self.seconds_of_line = 0.0
        self.peak_mb = max(self.peak_mb, self.memory.peak_mb())
        rtol, _ = self.tolerances.forward()
        values |= self.pending | {
            "memory/peak_mb": self.peak_mb,
            "optim/lr": self.rate,
            "tolerance/rtol": rtol,
            "epoch": self.state.step / self.steps_per_epoch,
        }
        self.pending.clear()
        self.rate = float(self.schedule.get_last_lr()[0])
        self.state.totals["nfe_forward"] += steps * values["nfe/forward"]
        self.state.totals["nfe_backward"] += steps * values["nfe/backward"]
        for name in ("train/loss", "optim/grad_norm"):
            if not math.isfinite(values[name]):
                raise Diverged(
                    f"{name} became {values[name]} between steps {self.state.step - steps} and {self.state.step}; "
                    f"try a smaller optimizer.lr (now {values['optim/lr']:g}), trainer.grad_clip=1, or a smooth "
                    "field.activation"
                )
        self.state.last |= values
        self.report(values)

    def validate(self) -> None:
        """Metrics of the validation part; keeps the best weights and a checkpoint."""
        synchronise(self.device)
        self.tick()
        values = {f"val/{name}": value for name, value in self.evaluate(self.splits.val).items()}
        if not math.isfinite(values["val/loss"]):
            found = f"val/loss became {values['val/loss']} at step {self.state.step}"
            raise Diverged(f"{found}; try a smaller optimizer.lr")
        self.report(values)
        if values["val/loss"] < self.state.best.get("val/loss", math.inf):
            self.state.best, self.state.best_step, self.bad_evaluations = values, self.state.step, 0
            checkpoint.save(self.checkpoints / "best.pt", {"model": self.weights.state_dict(), "step": self.state.step})
        else:
            self.bad_evaluations += 1
        self.tick(training=False)
        self.save("last")
        self.tick(training=False)  # writing the checkpoint is no training either

    def evaluate(self, part: Any) -> dict[str, float]:
        """Metrics of a part, at the evaluation tolerance, with the same noise every time."""
        self.weights.eval()
        devices = [self.device] if self.device.type == "cuda" else []
        with self.tolerances.evaluation(), torch.random.fork_rng(devices=devices):
            torch.manual_seed(EVALUATION_SEED)
            return self.task.evaluate(self.weights, part, self.config.eval_batch_size)

    def out_of_patience(self) -> bool:
        """Whether val/loss has not become better for too long; the reason goes into the state."""
        patience = self.config.patience
        if patience is None or self.bad_evaluations < patience:
            return False
        self.state.reason = f"no better val/loss in {patience} validations"
        return True

    def out_of_time(self) -> bool:
        """Whether the time budget is spent; the reason goes into the state."""
        budget = self.config.max_seconds
        spent = self.state.totals["seconds_total"] + time.perf_counter() - self.clock
        if budget is None or spent <= budget:
            return False
        self.state.reason = f"trainer.max_seconds={budget:g} spent"
        return True

    def nothing_left(self) -> str:
        """Why the run is at its end; empty if there are steps left."""
        if self.state.step >= self.total:
            return f"all {self.state.step} steps are done, and a larger trainer.steps or trainer.epochs would go on"
        if self.out_of_patience() or self.out_of_time():
            return f"{self.state.reason}, and a larger or no limit would go on"
        return ""

    # --- what surrounds it -----------------------------------------------------------------------

    @property
    def weights(self) -> nn.Module:
        """The weights that are validated and kept: the model's, or their moving average."""
        return self.model if self.average is None else self.average.module

    def tick(self, training: bool = True) -> None:
        """Book the time since the last tick as training, or as something else."""
        now = time.perf_counter()
        passed, self.clock = now - self.clock, now
        self.state.totals["seconds_total"] += passed
        if training:
            self.seconds_of_line += passed
            self.state.totals["seconds"] += passed

    def report(self, values: Mapping[str, float]) -> None:
        """Tell the reporters one line of metrics."""
        for reporter in self.reporters:
            reporter.scalars(self.state.step, values)

    def save(self, name: str) -> None:
        """Write all that is needed to go on bit for bit."""
        checkpoint.save(
            self.checkpoints / f"{name}.pt",
            {
                "model": self.model.state_dict(),
                "average": None if self.average is None else self.average.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "rng": rng_state(),
                "meter": self.meter.state_dict(),
                "pending": dict(self.pending),
                "rate": self.rate,
                "seconds_of_line": self.seconds_of_line,
                "bad_evaluations": self.bad_evaluations,
                "peak_mb": self.peak_mb,
                "state": vars(self.state),
            },
        )

    def restore(self) -> None:
        """Go on from last.pt. Lengths and intervals may have changed since.

        Raises:
            DataError: there is none, or it cannot be read.
        """
        saved = checkpoint.load(self.checkpoints / "last.pt", self.device)
        self.model.load_state_dict(saved["model"])
        if self.average is not None and saved["average"] is not None:
            self.average.load_state_dict(saved["average"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        restore_rng({name: _on_cpu(value) for name, value in saved["rng"].items()})
        self.meter.load_state_dict(saved["meter"], self.device)
        self.pending = saved["pending"]
        # The rate of the next step by this run's own length.
        lengths = zip(self.optimizer.param_groups, self.schedule.base_lrs, self.schedule.lr_lambdas, strict=True)
        for group, base, factor in lengths:
            group["lr"] = base * factor(self.schedule.last_epoch)
        self.rate = saved["rate"] if self.meter.steps else self.optimizer.param_groups[0]["lr"]
        self.seconds_of_line = saved["seconds_of_line"]
        self.bad_evaluations = saved["bad_evaluations"]
        self.peak_mb = saved["peak_mb"]
        self.state = Trained(**{**saved["state"], "status": "completed", "reason": Trained.reason})

    def load_best(self) -> None:
        """Put the best weights into the model, where a validation has chosen some."""
        if self.state.best:
            self.model.load_state_dict(checkpoint.load(self.checkpoints / "best.pt", self.device)["model"])
        self.average = None
        self.model.eval()


def total_steps(config: TrainerConfig, steps_per_epoch: int) -> int:
    """Optimiser steps of a run: `steps` or `epochs`, whichever ends first.

    Raises:
        ConfigError: neither is given.
    """
    lengths = []
    if config.steps is not None:
        lengths.append(config.steps)
    if config.epochs is not None:
        lengths.append(config.epochs * steps_per_epoch)
    if not lengths:
        raise ConfigError("trainer: give steps or epochs, so that the run ends")
    return min(lengths)


def _on_cpu(state: Any) -> Any:
    """Generator states live on the CPU, wherever the checkpoint was loaded to."""
    return [part.cpu() for part in state] if isinstance(state, list) else state.cpu()
