"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from node_runner.errors import ConfigError, Diverged
from node_runner.learning import Task
from node_runner.memory import MB, PeakMemory, saved_for_backward
from node_runner.runtime import synchronise
from node_runner.settings import TrainerConfig
from node_runner.solving import Tolerances
from node_runner.stiffness import Stiffness
from node_runner.training import checkpoint, saving
from node_runner.training.average import MovingAverage
from node_runner.training.field_weights import FieldDecay, Limits
from node_runner.training.interrupt import Interrupt
from node_runner.training.meter import Meter
from node_runner.training.rates import LearningRate
from node_runner.training.reporter import Reporter
from node_runner.training.trained import Trained
from node_runner.views import Splits


EVALUATION_SEED = 20_181_219
"""Seeds the noise of evaluations (dequantisation, trace estimates), so that they can be compared."""


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
        decay: of the field's weights (None: none).
        stiffness: measures that of a step's solve (None: it is not measured).
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
        decay: FieldDecay | None = None,
        stiffness: Stiffness | None = None,
    ) -> None:
        self.stiffness = stiffness
        self.model, self.task, self.splits = model, task, splits
        self.optimizer, self.tolerances, self.config = optimizer, tolerances, config
        self.device, self.checkpoints, self.reporters = device, checkpoints, reporters
        # The batches ask for the progress only when one is drawn, and then the total is known.
        self.steps_per_epoch, self.batch = task.batches(splits.train, config, seed, lambda step: step / self.total)
        self.total = total_steps(config, self.steps_per_epoch)
        self.rates = LearningRate(optimizer, make_factor(self.total))
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.decay, self.limits = decay, Limits(model)
        self.average = MovingAverage(model, config.average) if config.average else None
        self.state = Trained()
        self.meter = Meter()
        self.memory: PeakMemory | None = None  # watched from the first step on
        self.bad_evaluations = 0
        self.seconds_of_line = 0.0
        self.peak_mb = 0.0
        self.pending: dict[str, float] = {}
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
        self.model.train()
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
        self.rates.set(self.state.step)
        self.optimizer.step(lambda: self.differentiate(measure_saved))  # type: ignore[arg-type, return-value]
        self.limits.impose()
        if self.average is not None:
            self.average.update()
        self.meter.end_step()

    def differentiate(self, measure_saved: bool) -> Tensor:
        """Loss () and its gradient for the batch of this step, both booked in the meter."""
        for parameter in self.parameters:
            parameter.grad = None
        batch = self.batch(self.state.step)
        if measure_saved and "memory/saved_mb" not in self.pending:
            with saved_for_backward(self.model) as saved, self.watching():
                out = self.task.step(self.model, batch)
            # Autograd's own, and what the engine keeps beside it.
            self.pending["memory/saved_mb"] = saved.mb + sum(stats.kept_bytes for stats in out.solves) / MB
            if self.stiffness is not None:
                self.pending |= self.stiffness.measured()
        else:
            out = self.task.step(self.model, batch)
        out.loss.backward()
        self.meter.add({**out.scalars, "optim/grad_norm": self.clipped_norm()}, out.solves)
        if self.decay is not None:
            self.decay.shrink(self.rates.at(self.state.step))
        return out.loss.detach()

    def watching(self) -> AbstractContextManager[None]:
        """A block whose solves are measured for stiffness, where that is asked for."""
        return nullcontext() if self.stiffness is None else self.stiffness.watching()

    def clipped_norm(self) -> Tensor:
        """Norm of the gradient, (); where it is above `grad_clip` the gradient is scaled down to that."""
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        if self.config.grad_clip is not None:
            torch._foreach_mul_(gradients, (self.config.grad_clip / (norm + 1e-6)).clamp(max=1.0))
        return norm

    def log(self) -> None:
        """One line of metrics: the means since the last one. The only host copy of the loop."""
        synchronise(self.device)
        self.tick()
        steps = self.meter.steps
        values = self.meter.means(self.seconds_of_line)
        self.seconds_of_line = 0.0
        assert self.memory is not None, "training has begun"
        self.peak_mb = max(self.peak_mb, self.memory.peak_mb())
        rtol, _ = self.tolerances.forward()
        values |= self.limits.scalars() | ({} if self.decay is None else self.decay.scalars())
        values |= self.pending | {
            "memory/peak_mb": self.peak_mb,
            "optim/lr": self.rates.at(self.state.step - steps),
            "tolerance/rtol": rtol,
            "epoch": self.state.step / self.steps_per_epoch,
        }
        self.pending.clear()
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
        weights = self.weights
        training = weights.training
        devices = [self.device] if self.device.type == "cuda" else []
        with self.tolerances.evaluation(), torch.random.fork_rng(devices=devices):
            torch.manual_seed(EVALUATION_SEED)
            metrics = self.task.evaluate(weights.eval(), part, self.config.eval_batch_size)
        weights.train(training)
        return metrics

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
        return self.model if self.average is None else self.average.model()

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
        checkpoint.save(self.checkpoints / f"{name}.pt", saving.state_of(self))

    def restore(self) -> None:
        """Go on from last.pt. Lengths and intervals may have changed since.

        Raises:
            DataError: there is none, or it cannot be read.
        """
        saving.reinstate(self, checkpoint.load(self.checkpoints / "last.pt", self.device))

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
