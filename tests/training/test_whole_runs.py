"""Real models in the loop: learning, repeating to the bit, and going on as if never stopped."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from node_runner.errors import DataError
from node_runner.settings import FirstStates, SpiralForm, Trace
from node_runner.training.loop import Trainer
from tests.runs import make_run, trainer_of
from tests.training.test_loop import SignalAt


SETTINGS: dict[str, dict[str, Any]] = {
    "adam": {},
    "adam-with-average": {"trainer__average": 0.9, "schedule": "cosine"},
    "sgd-with-clipping": {"optimizer": "sgd", "optimizer__lr": 0.01, "trainer__grad_clip": 0.1},
    "lbfgs": {"optimizer": "lbfgs", "optimizer__max_iter": 3, "trainer__batch_size": None, "solver": "midpoint"},
    "windows-with-curriculum": {
        "trainer__window": 8, "trainer__window_start": 3, "dataset__times": 20, "solver": "midpoint",
    },
    "adjoint-and-tolerance-schedule": {
        "adjoint": "on", "tolerance__start_rtol": 1e-1, "tolerance__start_atol": 1e-2,
    },
    "jacobian-regulariser": {"regularisers": ["jacobian"], "solver": "rk4"},
    "flow-with-probes": {"model": "cnf", "field": "concatsquash", "model__trace": Trace.hutchinson},
    "brownian-paths": {
        "dataset": "ornstein_uhlenbeck", "model": "latent_sde", "solver": "reversible_heun", "engine": "torchsde",
        "adjoint": "on", "dataset__times": 8,
    },
    "multiple-shooting-with-residual": {
        "dataset": "lotka-volterra", "dataset__times": 10, "trainer__shooting": 4, "trainer__residual": 0.1,
        "trainer__field_weight_decay": 0.1, "solver": "midpoint",
    },
    "learned-first-states": {
        "dataset": "oscillator", "model": "greybox", "trainer__first_states": FirstStates.learned,
        "trainer__warm_start": 3, "trainer__average": 0.9, "solver": "midpoint",
    },
    "dequantised-images": {"dataset": "digits", "model": "cnf", "solver": "midpoint", "solver__step_size": 0.5},
}  # fmt: skip


def build(folder: Path, name: str) -> tuple[Trainer, Any]:
    """Ten steps of a small run, with lines and validations that do not fall on the fifth."""
    settings = {"trainer__steps": 10, "trainer__log_every": 3, "trainer__eval_every": 4, **SETTINGS[name]}
    if settings.get("dataset") is None:
        settings = {"dataset__horizon": 1.0, "dataset__times": 6, **settings}
    trainer, _, lines = trainer_of(make_run(**settings), folder)
    return trainer, lines


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def assert_equal(mine: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert mine.keys() == other.keys()
    for name in mine:
        assert torch.equal(mine[name], other[name]), name


@pytest.mark.parametrize("name", SETTINGS)
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path: Path, name: str):
    if name == "brownian-paths":
        pytest.importorskip("torchsde", reason="torchsde is not installed: pip install 'node-runner[sde]'")
    trainer, lines = build(tmp_path / "whole", name)
    whole = trainer.train()
    best, last = weights(trainer), torch.load(tmp_path / "whole" / "checkpoints" / "last.pt")

    stopped, before = build(tmp_path / "parts", name)
    stopped.reporters.append(SignalAt(5, signal.SIGINT))
    assert stopped.train().step == 5
    torch.manual_seed(99)  # what happens in between must not matter
    resumed, after = build(tmp_path / "parts", name)
    torch.rand(7)
    resumed.restore()
    assert resumed.state.step == 5
    parts = resumed.train()

    assert (parts.status, parts.step, parts.best_step) == (whole.status, whole.step, whole.best_step)
    assert parts.best == whole.best
    assert before.repeatable() + after.repeatable() == lines.repeatable()
    assert_equal(weights(resumed), best)
    again = torch.load(tmp_path / "parts" / "checkpoints" / "last.pt")
    assert_equal(again["model"], last["model"])
    for total in ("nfe_forward", "nfe_backward"):
        assert parts.totals[total] == pytest.approx(whole.totals[total])


def test_averaged_weights_are_validated_at_the_tolerance_of_evaluation(tmp_path: Path):
    finer = {"tolerance__eval_rtol": 1e-9, "tolerance__eval_atol": 1e-10}
    run = make_run(trainer__steps=2, trainer__average=0.9, **finer)
    trainer, experiment, _ = trainer_of(run, tmp_path)
    trained = trainer.train()  # leaves the validated weights in the model itself
    assert trained.best["val/nfe"] == trainer.evaluate(experiment.splits.val)["nfe"]
    assert trained.best["val/loss"] == trainer.evaluate(experiment.splits.val)["loss"]


@pytest.mark.parametrize("name", ["adam-with-average", "flow-with-probes"])
def test_a_run_repeats_to_the_bit(tmp_path: Path, name: str):
    results = []
    for folder in ("one", "two"):
        trainer, lines = build(tmp_path / folder, name)
        trainer.train()
        results.append((weights(trainer), lines.repeatable()))
    assert_equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]


def test_another_seed_gives_another_run(tmp_path: Path):
    finals = []
    for seed in (0, 1):
        trainer, _, lines = trainer_of(make_run(seed=seed), tmp_path / str(seed))
        trainer.train()
        finals.append(lines.of("train/loss"))
    assert finals[0] != finals[1]


@pytest.mark.parametrize(
    ("adjoint", "optimizer", "settings"),
    [
        ("off", "adam", {"trainer__steps": 100, "trainer__window": 5, "optimizer__lr": 0.02}),
        ("on", "adam", {"trainer__steps": 60, "trainer__window": 3, "optimizer__lr": 0.03}),
        ("off", "lbfgs", {"trainer__steps": 6, "trainer__batch_size": None}),
    ],
    ids=["adam", "adam-adjoint", "lbfgs"],
)
def test_a_linear_system_is_learned(tmp_path: Path, adjoint: str, optimizer: str, settings: dict[str, Any]):
    spiral = {"dataset__form": SpiralForm.linear, "dataset__horizon": 2.0, "dataset__times": 10}
    usual = {"field__width": 16, "trainer__batch_size": 32, "trainer__eval_every": 50}
    run = make_run(adjoint=adjoint, optimizer=optimizer, solver="rk4", **{**spiral, **usual, **settings})
    trainer, experiment, lines = trainer_of(run, tmp_path)
    untrained = trainer.evaluate(experiment.splits.test)["loss"]
    trainer.train()
    assert trainer.evaluate(experiment.splits.test)["loss"] < untrained / 30
    assert (lines.of("nfe/backward")[0] > 0) == (adjoint == "on")


def test_without_a_checkpoint_there_is_nothing_to_go_on_from(tmp_path: Path):
    trainer, _ = build(tmp_path, "adam")
    with pytest.raises(DataError, match="no such checkpoint"):
        trainer.restore()


def test_a_truncated_checkpoint_is_refused_on_resume(tmp_path: Path):
    trainer, _ = build(tmp_path, "adam")
    trainer.train()
    file = tmp_path / "checkpoints" / "last.pt"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match="is it truncated"):
        build(tmp_path, "adam")[0].restore()


def test_a_finished_run_goes_on_when_it_gets_more_steps(tmp_path: Path):
    build(tmp_path, "adam")[0].train()
    longer, _, lines = trainer_of(make_run(trainer__steps=14, trainer__log_every=3, trainer__eval_every=4), tmp_path)
    longer.restore()
    assert longer.train().step == 14
    assert lines.began == [(10, 14)]


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["adam", "flow-with-probes"])
def test_a_run_on_a_gpu_repeats_and_goes_on(tmp_path: Path, name: str):
    from node_runner.settings import Place

    finals = []
    for folder in ("one", "two"):
        settings = {"trainer__steps": 6, "trainer__eval_every": 2, "device__place": Place.cuda, **SETTINGS[name]}
        trainer, experiment, lines = trainer_of(make_run(**settings), tmp_path / folder)
        assert experiment.device.type == "cuda"
        trainer.train()
        finals.append(lines.of("train/loss"))
    assert finals[0] == pytest.approx(finals[1], rel=1e-6)
    trainer.restore()
    assert trainer.state.step == 6
