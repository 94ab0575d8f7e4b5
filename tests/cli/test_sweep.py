"""`node-run -m`: a folder a job, a table at the end, and no job stops the others."""

from __future__ import annotations

import functools
import json
import os
import signal
from pathlib import Path

import pytest
from omegaconf import DictConfig

from node_runner.cli import journal
from node_runner.cli.compare.compared import read_compared
from node_runner.cli.train import job, sweep
from node_runner.cli.train.sweep import draw_sweep
from node_runner.reporting.console import ConsoleProgress
from node_runner.reporting.run_folder import RunFolder
from node_runner.runs.config_file import load_run
from tests.cli.conftest import SPIRAL, NodeRun


SWEEP = ("-m", *SPIRAL, "trainer.steps=2", "sweep=s")
FOLDER = Path("outputs/sweeps/s")


def statuses() -> list[str]:
    return [job.status for job in journal.read(FOLDER)]


def test_every_job_is_a_run_and_a_table_ends_it(node_run: NodeRun):
    done = node_run(*SWEEP[1:], "-m", "solver=euler,rk4")  # the flag may stand anywhere
    assert done.code == 0
    assert statuses() == ["done", "done"]
    results = sorted(FOLDER.glob("*/result.json"))
    assert [json.loads(file.read_text())["status"] for file in results] == ["completed"] * 2
    table = done.out.splitlines()
    assert table[0] == str(FOLDER)
    assert [line.split()[0] for line in table[1:]] == ["solver", "euler", "rk4"]
    best = min(results, key=lambda file: json.loads(file.read_text())["metrics"]["val/loss"]).parent
    assert f"least val/loss: {best}\nlonger: node-run resume {best} trainer.steps=4\n" in done.err
    assert done.last == f"sweep: {FOLDER}  (again: node-run compare {FOLDER})"


def test_a_sweep_is_drawn_without_being_asked(
    node_run: NodeRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("node_runner.cli.train.sweep.draw_sweep", draw_sweep)
    assert f"figure: {FOLDER}/comparison.png\n" in node_run(*SWEEP, "seed=1,2").err
    assert (FOLDER / "comparison.png").read_bytes().startswith(b"\x89PNG")
    for metrics in FOLDER.glob("*/metrics.jsonl"):
        metrics.write_text("")
    draw_sweep(read_compared([str(FOLDER)]), FOLDER)
    assert capsys.readouterr().err == "no figure: nothing to plot: none of these runs has been validated yet\n"


def test_jobs_that_fail_or_are_refused_do_not_stop_the_others(node_run: NodeRun):
    done = node_run(*SWEEP, "solver=dopri5,euler", "adjoint=seminorm", "optimizer.lr=1e38", "trainer.steps=4")
    assert statuses() == ["failed", "refused"]
    assert done.code == 2
    assert done.last.startswith("node-run: of 2 jobs, 1 failed and 1 refused; the first, solver=dopri5: ")
    assert "Error executing job" not in done.err and "Traceback" not in done.err
    assert "solver=euler: refused: adjoint=seminorm" in done.out
    assert len(list(FOLDER.glob("*/"))) == 1


def test_a_sweep_of_which_every_job_is_refused_leaves_nothing(node_run: NodeRun, here: Path):
    done = node_run(*SWEEP, "seed=1,2", "optimizer.lr=-1")
    assert done.code == 2
    assert done.last.startswith("node-run: of 2 jobs, 2 refused; the first, seed=1: optimizer.lr: expected a number")
    assert list(here.iterdir()) == []


def test_a_sweep_that_is_run_again_does_only_what_is_not_done(node_run: NodeRun):
    arguments = (*SWEEP, "solver=dopri5", "solver.max_steps=1,500")
    done = node_run(*arguments)
    assert done.code == 1
    assert statuses() == ["failed", "done"]
    assert done.last.startswith("node-run: of 2 jobs, 1 failed; the first, solver.max_steps=1: dopri5 spent its budget")
    assert "failed: dopri5 spent its budget" in done.out
    times = {file: file.stat().st_mtime_ns for file in FOLDER.glob("*/result.json")}
    done = node_run(*arguments)
    assert done.code == 1
    assert statuses() == ["failed", "skipped"]
    assert "job 1: skipped, it was run before with this configuration" in done.err
    assert "job 0: runs again; before, it failed" in done.err
    changed = [file for file, before in times.items() if file.stat().st_mtime_ns != before]
    assert [json.loads(file.read_text())["status"] for file in changed] == ["failed"]


def test_a_job_whose_configuration_is_another_is_run_again(spiral: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO")
    job = journal.Job(0, [], "spiral")
    same = load_run(spiral / "config.yaml")
    recorded = RunFolder(spiral).read_result()
    assert sweep._run_or_skip(same, spiral, job) == recorded["metrics"]["val/loss"]
    assert job.status == "skipped"
    other = load_run(spiral / "config.yaml", ["seed=1"])
    sweep._run_or_skip(other, spiral, journal.Job(0, [], "spiral"))
    assert "runs again; before, its configuration was another" in caplog.text
    assert RunFolder(spiral).read_result()["config_hash"] != recorded["config_hash"]


def test_ctrl_c_before_the_first_run_has_begun_is_told_as_such(node_run: NodeRun, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        patch.setattr("node_runner.runs.run.run", lambda *_, **__: os.kill(os.getpid(), signal.SIGINT))
        done = node_run(*SWEEP, "trainer.steps=6", "seed=1,2")
    assert done.code == 130
    assert done.last.startswith("node-run: interrupted")


def test_ctrl_c_ends_a_sweep_that_can_go_on(node_run: NodeRun, monkeypatch: pytest.MonkeyPatch):
    arguments = (*SWEEP, "trainer.steps=6", "seed=1,2")
    with monkeypatch.context() as patch:
        patch.setattr(ConsoleProgress, "step", lambda self, step: step == 4 and os.kill(os.getpid(), signal.SIGINT))
        done = node_run(*arguments)
    assert done.code == 130
    assert done.last == "node-run: interrupted; the same command with sweep=s goes on, and skips what is done"
    assert statuses() == ["interrupted"]
    done = node_run(*arguments)
    assert done.code == 0
    assert "job 0: goes on where it was stopped" in done.err
    assert statuses() == ["done", "done"]
    results = [json.loads(file.read_text()) for file in FOLDER.glob("*/result.json")]
    assert [result["totals"]["steps"] for result in results] == [6, 6]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("solver=rk4,dopri", "solver=dopri: no such option; did you mean 'dopri5'?"),
        ("solver.step_sise=1,2", "solver.step_sise: no such setting of solver=midpoint"),
        ("tolerance.rtol=1e-3,abc", "tolerance.rtol: expected a number, got abc"),
    ],
)
def test_a_sweep_that_cannot_be_composed_leaves_nothing(node_run: NodeRun, here: Path, typed: str, said: str):
    done = node_run(*SWEEP, typed)
    assert done.code == 2
    assert done.line.startswith(f"node-run: {said}")
    assert list(here.iterdir()) == []


def test_another_sweeper_hears_of_a_failed_job(node_run: NodeRun, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("node_runner.cli.train.sweep.BASIC", "somebody.else.Sweeper")
    done = node_run(*SWEEP, "solver=dopri5", "solver.max_steps=1")
    assert done.code == 1
    # What Hydra prints for an error that is raised.
    assert "Error executing job with overrides" in done.err
    assert done.last.startswith("node-run: of 1 jobs, 1 failed")


def test_a_sweeper_is_told_the_val_loss_of_each_job(node_run: NodeRun, monkeypatch: pytest.MonkeyPatch):
    told: list[float] = []
    run = job.run

    @functools.wraps(run)
    def listen(config: DictConfig) -> float:
        told.append(run(config))
        return told[-1]

    monkeypatch.setattr(job, "run", listen)
    assert node_run(*SWEEP, "seed=0,1").code == 0
    folders = [RunFolder(FOLDER / each.folder) for each in journal.read(FOLDER)]
    assert told == [folder.read_result()["metrics"]["val/loss"] for folder in folders]


def test_jobs_are_named_by_what_tells_them_apart():
    jobs = [journal.Job(number, ["seed=1", f"solver={name}"], name) for number, name in enumerate(("rk4", "euler"))]
    assert journal.names(jobs) == ["solver=rk4", "solver=euler"]
    assert journal.names(jobs[:1]) == ["seed=1 solver=rk4"]
