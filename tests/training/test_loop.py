"""The training loop, on stand-ins: order of events, choice of weights, reasons to stop."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path

import pytest
import torch

from node_runner.errors import ConfigError, Diverged
from node_runner.settings import ToleranceConfig, TrainerConfig
from node_runner.training import checkpoint
from node_runner.training.loop import total_steps
from tests.runs import Lines
from tests.training.stubs import Scripted, Weight, make_trainer


CPU = torch.device("cpu")


def sgd(lr: float):
    return lambda parameters: torch.optim.SGD(parameters, lr=lr)


# --- the run of events ---------------------------------------------------------------------------


def test_steps_lines_and_validations_come_when_they_should(tmp_path: Path):
    trainer, lines = make_trainer(tmp_path, Scripted(), steps=7, log_every=3, eval_every=2)
    trained = trainer.train()
    assert (trained.status, trained.reason, trained.step) == ("completed", "all steps done", 7)
    assert lines.began == [(0, 7)]
    assert lines.steps == [1, 2, 3, 4, 5, 6, 7]
    assert [step for step, values in lines.lines if "train/loss" in values] == [3, 6, 7]
    assert [step for step, values in lines.lines if "val/loss" in values] == [2, 4, 6, 7]


def test_a_line_has_the_public_names(tmp_path: Path):
    trainer, lines = make_trainer(tmp_path, Scripted(), steps=2)
    trainer.train()
    expected = {
        "train/loss", "optim/lr", "optim/grad_norm", "nfe/forward", "nfe/backward", "solver/accepted",
        "solver/rejected", "memory/peak_mb", "memory/saved_mb", "time/step_ms", "time/solve_share", "tolerance/rtol",
        "epoch",
    }  # fmt: skip
    assert expected <= set(lines.lines[0][1])


def test_a_line_is_the_mean_since_the_last_one(tmp_path: Path):
    losses = [float(i) for i in range(6)]
    task = Scripted(lambda value, step: value.sum() * 0 + losses[step])
    trainer, lines = make_trainer(tmp_path, task, steps=6, log_every=3)
    trainer.train()
    assert lines.of("train/loss") == [1.0, 4.0]
    assert lines.of("nfe/forward") == [11.0, 14.0]
    assert lines.of("epoch") == [0.75, 1.5]


def test_totals_are_sums_over_the_whole_run(tmp_path: Path):
    trainer, _ = make_trainer(tmp_path, Scripted(), steps=7, log_every=3)
    totals = trainer.train().totals
    assert totals["nfe_forward"] == sum(10 + step for step in range(7))
    assert totals["nfe_backward"] == sum(range(7))
    assert 0 < totals["seconds"] <= totals["seconds_total"]


def test_the_model_trains_in_training_mode_and_is_evaluated_in_evaluation_mode(tmp_path: Path):
    task = Scripted()
    trainer, _ = make_trainer(tmp_path, task, steps=4, eval_every=2)
    trainer.train()
    assert task.modes == [True, True, False, True, True, False]
    assert not trainer.model.training


def test_saved_memory_is_measured_at_the_first_step_after_each_validation(tmp_path: Path):
    trainer, lines = make_trainer(tmp_path, Scripted(), steps=6, eval_every=3)
    trainer.train()
    assert [step for step, values in lines.lines if "memory/saved_mb" in values] == [1, 4]


@pytest.mark.parametrize(("steps", "epochs", "total"), [(10, None, 10), (None, 3, 12), (10, 3, 10), (100, 3, 12)])
def test_a_run_ends_at_its_steps_or_epochs_whichever_comes_first(steps: int | None, epochs: int | None, total: int):
    assert total_steps(TrainerConfig(steps=steps, epochs=epochs), 4) == total


def test_a_run_without_an_end_is_refused():
    with pytest.raises(ConfigError, match="give steps or epochs"):
        total_steps(TrainerConfig(steps=None, epochs=None), 4)


# --- which weights are kept -----------------------------------------------------------------------


def test_the_best_weights_are_those_of_the_lowest_validation_loss_and_no_other(tmp_path: Path):
    # The training loss goes on falling after the best validation; an equal one later does not count.
    task = Scripted(validations=[3.0, 1.0, 2.0, 1.0])
    trainer, lines = make_trainer(tmp_path, task, steps=8, eval_every=2)
    trained = trainer.train()
    assert trained.best_step == 4
    assert trained.best == {"val/loss": 1.0}
    assert lines.of("train/loss") == sorted(lines.of("train/loss"), reverse=True)
    assert trainer.model.value.tolist() == task.seen[1] == [pytest.approx(0.8**4)]
    assert checkpoint.load(tmp_path / "best.pt", CPU)["step"] == 4
    assert checkpoint.load(tmp_path / "last.pt", CPU)["model"]["value"].tolist() == [pytest.approx(0.8**8)]


def test_only_the_validation_part_is_looked_at_while_training(tmp_path: Path):
    task = Scripted()
    make_trainer(tmp_path, task)[0].train()
    assert set(task.parts) == {"val"}


def test_every_evaluation_has_the_same_noise_and_leaves_that_of_training_alone(tmp_path: Path):
    task = Scripted()
    trainer, _ = make_trainer(tmp_path, task, steps=4, eval_every=1)
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    trainer.train()
    assert len(set(task.noise)) == 1
    assert torch.equal(torch.rand(3), expected)


def test_the_moving_average_is_what_gets_validated_and_kept(tmp_path: Path):
    task = Scripted(validations=[4.0, 3.0, 2.0, 1.0])
    trainer, _ = make_trainer(tmp_path, task, steps=4, eval_every=1, average=0.75)
    trainer.train()
    # Weights 0.8, 0.8^2, ... ; those of k steps ago count as 0.75^k.
    averages = []
    for step in range(1, 5):
        shares = [0.75 ** (step - k) for k in range(1, step + 1)]
        averages.append(sum(share * 0.8**k for k, share in enumerate(shares, 1)) / sum(shares))
    assert [seen[0] for seen in task.seen] == pytest.approx(averages)
    assert trainer.model.value.tolist() == pytest.approx([averages[-1]])
    assert checkpoint.load(tmp_path / "best.pt", CPU)["model"]["value"].tolist() == pytest.approx([averages[-1]])
    assert checkpoint.load(tmp_path / "last.pt", CPU)["model"]["value"].tolist() == pytest.approx([0.8**4])


# --- the optimiser's step -------------------------------------------------------------------------


def test_the_gradient_is_clipped_to_its_largest_norm_and_reported_as_it_was(tmp_path: Path):
    model = Weight(3.0, 4.0)
    trainer, lines = make_trainer(tmp_path, Scripted(), model, optimizer=sgd(1.0), steps=1, grad_clip=0.5)
    trainer.train()
    # The gradient (6, 8) of norm 10 becomes (0.3, 0.4).
    assert lines.of("optim/grad_norm") == [pytest.approx(10.0)]
    assert model.value.tolist() == pytest.approx([2.7, 3.6], abs=1e-6)


def test_without_clipping_the_gradient_is_taken_as_it_is(tmp_path: Path):
    model = Weight(3.0, 4.0)
    make_trainer(tmp_path, Scripted(), model, optimizer=sgd(1.0), steps=1)[0].train()
    assert model.value.tolist() == [-3.0, -4.0]


def test_every_evaluation_of_lbfgs_is_counted(tmp_path: Path):
    calls = []

    def loss(value: torch.Tensor, step: int) -> torch.Tensor:
        calls.append(step)
        return (value - 3).pow(4).sum()

    def lbfgs(parameters):
        return torch.optim.LBFGS(parameters, lr=1.0, max_iter=5, line_search_fn="strong_wolfe")

    trainer, lines = make_trainer(tmp_path, Scripted(loss), optimizer=lbfgs, steps=2, log_every=2)
    trained = trainer.train()
    assert len(calls) > 4
    assert trained.totals["nfe_forward"] == pytest.approx(sum(10 + step for step in calls))
    assert lines.of("nfe/forward") == [pytest.approx(sum(10 + step for step in calls) / 2)]


def test_the_learning_rate_follows_its_schedule_and_a_line_shows_that_of_its_first_step(tmp_path: Path):
    rates = []

    def loss(value: torch.Tensor, step: int) -> torch.Tensor:
        rates.append(trainer.optimizer.param_groups[0]["lr"])
        return value.square().sum()

    trainer, lines = make_trainer(
        tmp_path, Scripted(loss), steps=6, log_every=2, factor=lambda total: lambda step: 1 - step / total
    )
    trainer.train()
    assert rates == pytest.approx([0.1 * (1 - step / 6) for step in range(6)])
    assert lines.of("optim/lr") == pytest.approx([rates[0], rates[2], rates[4]])


def test_the_tolerance_schedule_reaches_its_end(tmp_path: Path):
    tolerance = ToleranceConfig(rtol=1e-5, atol=1e-6, start_rtol=1e-1, start_atol=1e-2, schedule_share=0.5)
    trainer, lines = make_trainer(tmp_path, Scripted(), steps=8, tolerance=tolerance)
    trainer.train()
    rtol = lines.of("tolerance/rtol")
    assert rtol[0] == pytest.approx(1e-1)
    assert rtol == sorted(rtol, reverse=True)
    assert rtol[4:] == pytest.approx([1e-5] * 4)


def test_validation_uses_the_tolerance_of_evaluation(tmp_path: Path):
    class Watching(Scripted):
        def evaluate(self, *arguments):
            used.append(trainer.tolerances.forward())
            return super().evaluate(*arguments)

    used: list[tuple[float, float]] = []
    tolerance = ToleranceConfig(eval_rtol=1e-7, eval_atol=1e-8)
    trainer, _ = make_trainer(tmp_path, Watching(), steps=2, tolerance=tolerance)
    trainer.train()
    assert used == [(1e-7, 1e-8)]
    assert trainer.tolerances.forward() == (1e-4, 1e-5)


# --- reasons to stop ------------------------------------------------------------------------------


def test_training_stops_when_validation_has_not_become_better_for_too_long(tmp_path: Path):
    task = Scripted(validations=[3.0, 2.0, 2.0, 2.5, 1.0])
    trainer, _ = make_trainer(tmp_path, task, steps=20, eval_every=2, patience=2)
    trained = trainer.train()
    assert (trained.status, trained.step, trained.best_step) == ("completed", 8, 4)
    assert trained.reason == "no better val/loss in 2 validations"


def test_training_stops_when_its_time_is_spent_and_is_validated_first(tmp_path: Path):
    trainer, lines = make_trainer(tmp_path, Scripted(), steps=20, log_every=5, eval_every=5, max_seconds=1e-9)
    trained = trainer.train()
    assert (trained.status, trained.step, trained.best_step) == ("completed", 1, 1)
    assert "trainer.max_seconds" in trained.reason
    assert [step for step, values in lines.lines if "train/loss" in values] == [1]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_training_with_what_to_try(tmp_path: Path, bad: float):
    task = Scripted(lambda value, step: value.sum() * (bad if step == 3 else 1.0))
    trainer, lines = make_trainer(tmp_path, task, log_every=2)
    with pytest.raises(
        Diverged, match=r"train/loss became (nan|inf) between steps 2 and 4; try a smaller optimizer\.lr"
    ):
        trainer.train()
    assert [step for step, _ in lines.lines] == [2, 2]


def test_a_gradient_that_is_not_finite_ends_training(tmp_path: Path):
    # The loss is finite where its slope is not: |value|^0.5 at 0.
    task = Scripted(lambda value, step: value.abs().sqrt().sum())
    trainer, _ = make_trainer(tmp_path, task, Weight(0.0))
    with pytest.raises(Diverged, match="optim/grad_norm became"):
        trainer.train()


def test_a_validation_loss_that_is_not_finite_ends_training(tmp_path: Path):
    trainer, _ = make_trainer(tmp_path, Scripted(validations=[1.0, math.nan]))
    with pytest.raises(Diverged, match="val/loss became nan at step 4"):
        trainer.train()


class SignalAt(Lines):
    """Sends this process a signal when a step is complete."""

    def __init__(self, step: int, number: signal.Signals, times: int = 1) -> None:
        super().__init__()
        self.at, self.number, self.times = step, number, times

    def step(self, step: int) -> None:
        super().step(step)
        if step == self.at:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_a_signal_ends_training_between_two_steps_with_everything_saved(tmp_path: Path, number: signal.Signals):
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    trainer, _ = make_trainer(tmp_path, Scripted(), eval_every=2)
    trainer.reporters.append(SignalAt(3, number))
    trained = trainer.train()
    assert (trained.status, trained.step, trained.best_step) == ("interrupted", 3, 2)
    assert "stopped by" in trained.reason
    assert checkpoint.load(tmp_path / "last.pt", CPU)["state"]["step"] == 3
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_second_signal_stops_at_once(tmp_path: Path):
    trainer, _ = make_trainer(tmp_path, Scripted())
    trainer.reporters.append(SignalAt(3, signal.SIGINT, times=2))
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_run_that_was_not_interrupted_says_what_is_left(tmp_path: Path):
    trainer, _ = make_trainer(tmp_path, Scripted(), steps=4)
    assert trainer.nothing_left() == ""
    trainer.train()
    assert "all 4 steps are done" in trainer.nothing_left()
