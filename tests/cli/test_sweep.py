"""`node-run -m`: a folder a job, a table at the end, and no job stops the others."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from node_runner.cli import journal
from node_runner.reporting.console import ConsoleProgress
from tests.cli.conftest import SPIRAL, NodeRun


SWEEP = ("-m", *SPIRAL, "trainer.steps=2", "sweep=s")
FOLDER = Path("outputs/sweeps/s")


def statuses() -> list[str]:
    return [job.status for job in journal.read(FOLDER)]


def test_every_combination_is_a_run_and_a_table_ends_it(node_run: NodeRun):
    done = node_run(*SWEEP, "solver=euler,rk4", "seed=1,2")
    assert done.code == 0
    assert statuses() == ["done"] * 4
    results = sorted(FOLDER.glob("*/result.json"))
    assert [json.loads(file.read_text())["status"] for file in results] == ["completed"] * 4
    table = done.out.splitlines()
    assert table[0] == str(FOLDER)
    assert table[1].split()[:2] == ["seed", "solver"]
    assert [line.split()[:2] for line in table[2:]] == [["1", "euler"], ["2", "euler"], ["1", "rk4"], ["2", "rk4"]]
    assert done.last == f"sweep: {FOLDER}  (again: node-run compare {FOLDER})"


def test_jobs_that_fail_or_are_refused_do_not_stop_the_others(node_run: NodeRun):
    done = node_run(*SWEEP, "solver=dopri5,euler", "adjoint=seminorm", "tolerance.rtol=1e-3,1e-30", "trainer.steps=1")
    assert statuses() == ["done", "failed", "refused", "refused"]
    assert done.code == 2
    assert done.last.startswith(
        "node-run: of 4 jobs, 1 failed and 2 refused; the first, solver=dopri5 tolerance.rtol=1e-30: "
    )
    assert "Error executing job" not in done.err and "Traceback" not in done.err
    assert done.out.count("refused: adjoint=seminorm") == 2
    assert len(list(FOLDER.glob("*/"))) == 2


def test_failed_jobs_alone_are_exit_code_1(node_run: NodeRun):
    done = node_run(*SWEEP, "solver=dopri5", "solver.max_steps=1,500")
    assert done.code == 1
    assert statuses() == ["failed", "done"]
    assert done.last.startswith("node-run: of 2 jobs, 1 failed; the first, solver.max_steps=1: dopri5 spent its budget")
    assert "failed: dopri5 spent its budget" in done.out


def test_a_sweep_that_is_run_again_skips_what_is_done(node_run: NodeRun):
    node_run(*SWEEP, "solver=dopri5", "solver.max_steps=1,500")
    times = {file: file.stat().st_mtime_ns for file in FOLDER.glob("*/result.json")}
    done = node_run(*SWEEP, "solver=dopri5", "solver.max_steps=1,500")
    assert statuses() == ["failed", "skipped"]
    assert "job 1: skipped, it was run before with this configuration" in done.err
    assert "job 0: runs again; before, it failed" in done.err
    changed = [file for file, before in times.items() if file.stat().st_mtime_ns != before]
    assert [json.loads(file.read_text())["status"] for file in changed] == ["failed"]


def test_a_job_whose_configuration_is_another_is_run_again(node_run: NodeRun):
    node_run(*SWEEP, "seed=1")
    (config,) = FOLDER.glob("*/config.yaml")
    config.write_text(config.read_text().replace("lr: 0.005", "lr: 0.004"))
    done = node_run(*SWEEP, "seed=1")
    assert "runs again; before, its configuration was another" in done.err
    assert statuses() == ["done"]


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
        ("tolerance.rtol=1e-3,abc", "tolerance.rtol: Value 'abc'"),
    ],
)
def test_a_sweep_that_cannot_be_composed_leaves_nothing(node_run: NodeRun, here: Path, typed: str, said: str):
    done = node_run(*SWEEP, typed)
    assert done.code == 2
    assert done.line.startswith(f"node-run: {said}")
    assert list(here.iterdir()) == []


def test_another_sweeper_hears_of_a_failed_job(node_run: NodeRun, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("node_runner.cli.sweep.BASIC", "somebody.else.Sweeper")
    done = node_run(*SWEEP, "solver=dopri5", "solver.max_steps=1")
    assert done.code == 1
    # What Hydra prints for an error that is raised.
    assert "Error executing job with overrides" in done.err
    assert done.last.startswith("node-run: of 1 jobs, 1 failed")


def test_jobs_are_named_by_what_tells_them_apart():
    jobs = [journal.Job(number, ["seed=1", f"solver={name}"], name) for number, name in enumerate(("rk4", "euler"))]
    assert journal.names(jobs) == ["solver=rk4", "solver=euler"]
    assert journal.names(jobs[:1]) == ["seed=1 solver=rk4"]
