"""`node-run evaluate`: the metrics of result.json again, or others under other settings."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from node_runner.cli import evaluate as module
from node_runner.config import compose_run
from node_runner.errors import SolveFailed
from node_runner.runs.run import run as train
from tests.cli.conftest import SPIRAL, NodeRun


@pytest.mark.parametrize("name", ["spiral", "flow", "classes"])
def test_a_run_is_measured_as_it_was(node_run: NodeRun, trained: Path, name: str):
    before = {file: file.stat().st_mtime_ns for file in (trained / name).rglob("*")}
    done = node_run("evaluate", str(trained / name), "--save", "again.json")
    assert done.code == 0
    assert done.out.splitlines()[-1] == "as recorded in result.json"
    recorded = json.loads((trained / name / "result.json").read_text())["metrics"]
    again = json.loads(Path("again.json").read_text())["metrics"]
    assert {name.split("/")[0] for name in again} >= {"val", "test"}
    assert again == pytest.approx({name: recorded[name] for name in again}, rel=1e-6)
    assert {file: file.stat().st_mtime_ns for file in (trained / name).rglob("*")} == before


def test_other_settings_are_compared_with_what_was_recorded(node_run: NodeRun, spiral: Path):
    done = node_run(
        "evaluate", str(spiral), "solver=dopri5", "solver.max_steps=500", "tolerance=tight", "--part", "test"
    )
    assert done.code == 0
    assert "dopri5 at rtol 1e-05" in done.err
    lines = done.out.splitlines()
    assert [line.split("/")[0] for line in lines[1:-1]] == ["test"] * (len(lines) - 2)
    assert lines[-1].endswith(" differ from result.json")
    assert not (spiral / "evaluation.json").exists()


def test_the_data_may_be_others(node_run: NodeRun, spiral: Path):
    done = node_run("evaluate", str(spiral), "dataset.horizon=3.0", "dataset.times=5")
    assert done.code == 0
    assert "differ from result.json" in done.out


def test_first_states_are_those_of_the_training_whatever_the_data(node_run: NodeRun, here: Path):
    train(compose_run([*SPIRAL, "trainer.first_states=learned"]), here / "x", live=False)
    done = node_run("evaluate", "x", "dataset.train=5", "--part", "train", "--part", "test")
    assert done.code == 0
    assert "train/mse" in done.out and "test/mse" in done.out


def test_the_last_weights_are_measured_with_their_average(node_run: NodeRun, spiral: Path):
    file = spiral / "checkpoints" / "last.pt"
    state = torch.load(file, weights_only=True)
    best = torch.load(spiral / "checkpoints" / "best.pt", weights_only=True)["model"]
    state["average"] = {"steps": 6, "model": best}
    state["model"] = {name: torch.full_like(value, 0.1) for name, value in state["model"].items()}
    torch.save(state, file)
    assert node_run("evaluate", str(spiral), "--checkpoint", "last", "--save", "last.json").code == 0
    assert node_run("evaluate", str(spiral), "--save", "best.json").code == 0
    last, best = (json.loads(Path(name).read_text())["metrics"] for name in ("last.json", "best.json"))
    assert last == pytest.approx(best)


def test_a_tolerance_for_evaluation_is_said(node_run: NodeRun, spiral: Path):
    done = node_run("evaluate", str(spiral), "solver=dopri5", "tolerance.eval_rtol=1e-6", "--part", "val")
    assert "measured at tolerance.eval_rtol=1e-06, tolerance.eval_atol=1e-05" in done.err


def test_a_part_that_cannot_be_solved_leaves_the_others(
    node_run: NodeRun, spiral: Path, monkeypatch: pytest.MonkeyPatch
):
    make_trainer = module.make_trainer

    def failing(experiment, folder):  # type: ignore[no-untyped-def]
        trainer = make_trainer(experiment, folder)
        evaluate = trainer.evaluate

        def on(part):  # type: ignore[no-untyped-def]
            if part is experiment.splits.extra["test_long"]:
                raise SolveFailed("too stiff")
            return evaluate(part)

        trainer.evaluate = on
        return trainer

    monkeypatch.setattr(module, "make_trainer", failing)
    done = node_run("evaluate", str(spiral), "--save", "x.json")
    assert done.code == 0
    assert "test_long could not be measured: too stiff" in done.err
    metrics = json.loads(Path("x.json").read_text())["metrics"]
    assert math.isnan(metrics["test_long/loss"]) and math.isfinite(metrics["test/mse"])
    assert node_run("evaluate", str(spiral), "--part", "test_long").code == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--part", "tset"], "--part tset: no such part; did you mean 'test'?"),
        (["--checkpoint", "first"], "--checkpoint first: expected best or last"),
        (["tolerance.rtll=1"], "tolerance.rtll: no such setting; did you mean 'tolerance.rtol'?"),
        (["solver=dopri"], "solver=dopri: no such option; did you mean 'dopri5'?"),
        (["model=cnf"], "model=cnf: the weights fit their own model"),
        (["+x=1"], "+x=1: expected key=value"),
        (["seed=1,2"], "seed=1,2: expected key=value with one value"),
        (["solver=scipy_solver"], "adjoint=off cannot differentiate"),
        (["field.width=9"], ": the weights do not fit the model that is asked for"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_measured_is_refused(node_run: NodeRun, trained: Path, arguments: list[str], said: str):
    done = node_run("evaluate", str(trained / "spiral"), *arguments)
    assert done.code == 2
    assert done.line.startswith("node-run: ") and said in done.line


def test_a_run_without_a_checkpoint_is_refused(node_run: NodeRun, spiral: Path):
    (spiral / "checkpoints" / "best.pt").unlink()
    done = node_run("evaluate", str(spiral))
    assert done.code == 2
    assert "no such checkpoint" in done.line
