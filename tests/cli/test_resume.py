"""`node-run resume`: a run that was stopped ends as if it had not been, to the bit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from matplotlib.figure import Figure

from node_runner.config import compose_run
from node_runner.reporting.console import ConsoleProgress
from node_runner.reporting.lock import locked
from node_runner.runs.run import run as train
from tests.cli.conftest import MOONS, SPIRAL, NodeRun


LENGTH = ("trainer.steps=12", "trainer.log_every=3", "trainer.eval_every=4")
"""Lines at 3, 6, 9, 12 and validations at 4, 8, 12: a run stopped after step 7 is in the middle of everything."""

KINDS = {
    "adam": (*SPIRAL, *LENGTH),
    "average": (*SPIRAL, *LENGTH, "trainer.average=0.99"),
    "lbfgs": (*SPIRAL, *LENGTH, "optimizer=lbfgs", "optimizer.max_iter=3", "trainer.batch_size=null"),
    "hutchinson": (*MOONS, *LENGTH, "model=cnf", "model.trace=hutchinson", "solver.step_size=0.5"),
}


class Killed(BaseException):
    """Ends a run as SIGKILL does: nothing is written after it."""


def train_until(when: int, how: str, overrides: Sequence[str], folder: Path) -> None:
    """A run that is interrupted or killed after a step."""

    def step(self: ConsoleProgress, step: int) -> None:
        if step == when and how == "killed":
            raise Killed
        if step == when:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ConsoleProgress, "step", step)
        if how == "killed":
            with pytest.raises(Killed):
                train(compose_run(overrides), folder, live=False)
        else:
            assert train(compose_run(overrides), folder, live=False)["status"] == "interrupted"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a run of a kind that nothing stopped, made once."""
    root = tmp_path_factory.mktemp("whole")

    def folder(kind: str) -> Path:
        if not (root / kind).exists():
            train(compose_run(KINDS[kind]), root / kind, live=False)
        return root / kind

    return folder


def lines(run: Path) -> list[dict[str, Any]]:
    """Lines of metrics without what the machine decides."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith(("time/", "memory/"))} for line in found]


def tensors(value: Any, path: str = "") -> dict[str, Any]:
    """What a checkpoint holds, flat, without times and memory."""
    if isinstance(value, dict):
        skipped = ("seconds", "seconds_total", "seconds_of_line", "solve_seconds", "peak_mb")
        pairs = [(k, v) for k, v in value.items() if k not in skipped and not str(k).startswith(("time/", "memory/"))]
    elif isinstance(value, list | tuple):
        pairs = list(enumerate(value))
    else:
        return {path: value}
    return {key: item for name, part in pairs for key, item in tensors(part, f"{path}/{name}").items()}


def assert_same_end(one: Path, other: Path) -> None:
    """Two runs left the same weights, optimiser state, random state, lines and results."""
    for name in ("last.pt", "best.pt"):
        mine, its = (tensors(torch.load(run / "checkpoints" / name, weights_only=True)) for run in (one, other))
        assert mine.keys() == its.keys()
        for key, value in mine.items():
            equal = torch.equal(value, its[key]) if isinstance(value, torch.Tensor) else value == its[key]
            assert equal, f"{name}{key}: {value} and {its[key]}"
    assert lines(one) == lines(other)
    mine, its = (json.loads((run / "result.json").read_text()) for run in (one, other))
    for result in (mine, its):
        result["metrics"] = {k: v for k, v in result["metrics"].items() if not k.startswith(("time/", "memory/"))}
        for key in ("seconds", "seconds_total"):
            del result["totals"][key]
        del result["command"]
    assert mine == its


# A run that is killed closes no file.
left_open = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@left_open
@pytest.mark.parametrize("how", ["interrupted", "killed"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_run_ends_as_if_it_had_not_been_stopped(
    node_run: NodeRun, here: Path, whole: Callable[[str], Path], kind: str, how: str
):
    train_until(7, how, KINDS[kind], here / "parts")
    assert (here / "parts" / "result.json").exists() == (how == "interrupted")
    torch.rand(5)  # the state of this process must not matter
    assert node_run("resume", "parts").code == 0
    assert_same_end(whole(kind), here / "parts")


@left_open
def test_a_run_that_was_killed_before_its_first_validation_begins_again(
    node_run: NodeRun, here: Path, whole: Callable[[str], Path]
):
    train_until(3, "killed", KINDS["adam"], here / "parts")
    assert not (here / "parts" / "checkpoints").exists()
    assert node_run("resume", "parts").code == 0
    assert_same_end(whole("adam"), here / "parts")


KILLS_ITSELF = """
import os, signal
from node_runner.cli.main import main
from node_runner.reporting.console import ConsoleProgress
step = ConsoleProgress.step
ConsoleProgress.step = lambda self, at: step(self, at) if at < 7 else os.kill(os.getpid(), signal.SIGKILL)
main()
"""


@pytest.mark.slow
def test_a_program_that_was_killed_goes_on(
    node_run: NodeRun, here: Path, whole: Callable[[str], Path], environment: dict[str, str]
):
    command = [sys.executable, "-c", KILLS_ITSELF, *KINDS["adam"], "hydra.run.dir=parts"]
    program = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert program.returncode == -signal.SIGKILL, program.stderr
    assert (here / "parts" / ".lock").exists()
    assert not (here / "parts" / "result.json").exists()
    assert node_run("resume", "parts").code == 0
    assert_same_end(whole("adam"), here / "parts")


def test_a_run_that_failed_goes_on_with_another_setting(node_run: NodeRun, here: Path):
    train_until(7, "interrupted", KINDS["adam"], here / "x")
    result = json.loads((here / "x" / "result.json").read_text())
    (here / "x" / "result.json").write_text(json.dumps({**result, "status": "failed"}))
    assert node_run("resume", "x", "trainer.grad_clip=1").code == 0
    assert json.loads((here / "x" / "result.json").read_text())["status"] == "completed"
    assert yaml.safe_load((here / "x" / "config.yaml").read_text())["trainer"]["grad_clip"] == 1.0


def test_a_run_that_is_done_says_so_and_is_left_alone(node_run: NodeRun, spiral: Path):
    before = {file: file.read_bytes() for file in spiral.rglob("*") if file.is_file() and file.name != "run.log"}
    done = node_run("resume", str(spiral))
    assert done.code == 0
    assert done.line.startswith("nothing left to do: all 6 steps are done")
    assert {file: file.read_bytes() for file in before} == before


def test_a_run_that_is_done_goes_on_when_it_gets_more_steps(node_run: NodeRun, spiral: Path):
    rate = "optim/lr"
    before = lines(spiral)
    assert node_run("resume", str(spiral), "trainer.steps=9", "logger=[]").code == 0
    after = lines(spiral)
    assert after[: len(before)] == before
    assert [line["step"] for line in after[len(before) :] if rate in line] == [8, 9]
    assert yaml.safe_load((spiral / "config.yaml").read_text())["trainer"]["steps"] == 9
    # The rate follows the schedule of nine steps, not that of six, which had come to its end.
    assert next(line for line in after if line["step"] == 8)[rate] > before[-2].get(rate, 0)


def test_figures_may_have_other_formats_and_are_those_of_the_last_end(
    node_run: NodeRun, spiral: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("node_runner.runs.run.draw", lambda *_: iter([("trajectories", Figure())]))
    (spiral / "figures").mkdir(exist_ok=True)
    (spiral / "figures" / "trajectories.png").write_bytes(b"of step 6")
    done = node_run("resume", str(spiral), "figures=[svg]")
    assert done.code == 0
    assert "node-run figures outputs/spiral --formats pdf,svg" in done.err
    assert (spiral / "figures" / "trajectories.png").read_bytes() == b"of step 6"
    assert node_run("resume", str(spiral), "trainer.steps=7", "figures=[svg]", "logger=[csv]").code == 0
    assert (spiral / "figures" / "trajectories.svg").exists()
    assert not (spiral / "figures" / "trajectories.png").exists()
    assert (spiral / "metrics.csv").exists()


def test_patience_that_is_spent_is_something_to_say(node_run: NodeRun, here: Path):
    config = compose_run([*SPIRAL, "optimizer.lr=1e-12", "trainer.patience=1", "trainer.eval_every=1"])
    train(config, here / "x", live=False)
    steps = json.loads((here / "x" / "result.json").read_text())["totals"]["steps"]
    assert steps < 6
    assert "no better val/loss in 1 validations" in node_run("resume", "x").line
    assert node_run("resume", "x", "trainer.patience=null").code == 0
    assert json.loads((here / "x" / "result.json").read_text())["totals"]["steps"] == 6


def test_what_brings_parameters_of_its_own_may_not_change(node_run: NodeRun, here: Path, spiral: Path):
    shutil.copytree(spiral, here / "x")
    done = node_run("resume", "x", "trainer.first_states=learned", "trainer.window=null", "trainer.steps=9")
    assert done.code == 2
    assert done.line.startswith("node-run: keep trainer.first_states, shooting and residual as they were: the weights")
    assert "first_states.values" in done.line


@pytest.mark.parametrize("override", ["solver=rk4", "optimizer.lr=1e-3", "seed=3", "device=cpu"])
def test_only_trainer_loggers_and_figures_may_change(node_run: NodeRun, spiral: Path, override: str):
    before = (spiral / "config.yaml").read_bytes()
    done = node_run("resume", str(spiral), override)
    assert done.code == 2
    said = f"node-run: {override}: a run that goes on may change trainer.*, logger and figures only"
    assert done.line.startswith(said)
    assert (spiral / "config.yaml").read_bytes() == before


def test_a_wrong_setting_is_refused_as_in_training(node_run: NodeRun, spiral: Path):
    assert "did you mean 'trainer.steps'?" in node_run("resume", str(spiral), "trainer.stpes=9").line
    assert "expected a number of at least 1" in node_run("resume", str(spiral), "trainer.steps=0").line


def test_a_truncated_checkpoint_is_refused(node_run: NodeRun, spiral: Path):
    shutil.copy(spiral / "result.json", spiral / "kept.json")
    (spiral / "checkpoints" / "last.pt").write_bytes(b"PK")
    done = node_run("resume", str(spiral), "trainer.steps=9")
    assert done.code == 2
    assert "cannot be read as a checkpoint" in done.line
    assert (spiral / "result.json").read_bytes() == (spiral / "kept.json").read_bytes()


def test_a_run_that_another_process_writes_is_left_alone(node_run: NodeRun, spiral: Path):
    before = {file: file.read_bytes() for file in spiral.rglob("*") if file.is_file() and file.name != "run.log"}
    with locked(spiral):
        done = node_run("resume", str(spiral), "trainer.steps=9")
        assert done.code == 2
        assert f"process {os.getpid()} is writing this run" in done.line
    assert {file: file.read_bytes() for file in before} == before
    assert node_run("resume", str(spiral), "trainer.steps=9").code == 0
    assert not (spiral / ".lock").exists()


def test_a_new_run_does_not_write_where_another_process_does(node_run: NodeRun, here: Path):
    with locked(here / "x"):
        done = node_run(*SPIRAL, "hydra.run.dir=x")
        assert done.code == 2
        assert "is writing this run" in done.line
        assert not (here / "x" / "metrics.jsonl").exists()
