"""`node-run OVERRIDES`: a run, Hydra's flags, Ctrl-C."""

from __future__ import annotations

import csv
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.figure import Figure

import node_runner
from node_runner.cli.train.job import forget
from node_runner.reporting.console import ConsoleProgress
from node_runner.reporting.run_folder import RunFolder
from tests.cli.conftest import SHORT, SPIRAL, NodeRun


@pytest.fixture
def signal_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sends Ctrl-C to this process after a step."""

    def arrange(when: int) -> None:
        def step(self: ConsoleProgress, step: int) -> None:
            if step == when:
                os.kill(os.getpid(), signal.SIGINT)

        monkeypatch.setattr(ConsoleProgress, "step", step)

    return arrange


def test_a_run_leaves_a_folder(node_run: NodeRun, here: Path):
    done = node_run(*SPIRAL)
    assert done.code == 0
    (result,) = here.glob("outputs/*/*/result.json")
    assert json.loads(result.read_text())["status"] == "completed"
    assert {entry.name for entry in result.parent.iterdir()} >= {
        ".hydra", "config.yaml", "environment.json", "metrics.jsonl", "checkpoints", "run.log",
    }  # fmt: skip


def test_train_is_the_name_of_what_needs_none(node_run: NodeRun):
    assert node_run("train", "--cfg", "job", "-p", "solver").out == node_run("--cfg", "job", "-p", "solver").out


def test_without_arguments_there_is_help(node_run: NodeRun):
    done = node_run()
    assert done.code == 0
    for command in ("train", "list", "evaluate", "sample", "resume", "compare", "figures", "board", "doctor"):
        assert command in done.out


@pytest.mark.parametrize("command", ["list", "evaluate", "sample", "resume", "compare", "figures", "board", "doctor"])
def test_every_command_shows_an_example(node_run: NodeRun, command: str):
    done = node_run(command, "--help")
    assert done.code == 0
    assert f"node-run {command}" in " ".join(done.out.split())


def test_the_version_is_printed(node_run: NodeRun):
    assert node_run("--version").out == f"node-run {node_runner.__version__}\n"


def test_the_help_of_train_shows_groups_and_configuration_and_no_schemas(node_run: NodeRun):
    done = node_run("train", "--help")
    assert done.code == 0
    assert "adjoint: checkpoint, off, on, seminorm" in done.out
    assert "schema" not in done.out
    assert "  rtol: 0.0001" in done.out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--cfg", "job", "--resolve", "-p", "solver", "solver=rk4"], "name: rk4"),
        (["--cfg", "hydra", "-p", "hydra.sweep"], "dir: outputs/sweeps/"),
        (["--info", "searchpath"], "components://"),
        (["--info", "defaults"], "schema/solver/dopri5"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_hydra_s_own_flags_work(node_run: NodeRun, here: Path, flags: list[str], said: str):
    done = node_run(*flags)
    assert done.code == 0
    assert said in done.out + done.err
    assert list(here.iterdir()) == []


def test_figures_are_written_in_the_formats_that_are_asked_for(
    node_run: NodeRun, monkeypatch: pytest.MonkeyPatch, here: Path
):
    monkeypatch.setattr("node_runner.runs.run.draw", lambda *_: iter([("phase_portrait", Figure())]))
    assert node_run(*SPIRAL, "figures=[pdf,svg]", "hydra.run.dir=outputs/x").code == 0
    files = {file.suffix: file.read_bytes() for file in (here / "outputs" / "x" / "figures").iterdir()}
    assert set(files) == {".pdf", ".svg"}
    assert files[".pdf"].startswith(b"%PDF") and b"<svg" in files[".svg"]
    refused = node_run(*SPIRAL, "figures=[jpeg]")
    assert refused.code == 2 and "jpeg" in refused.line and "png, pdf, svg" in refused.line


def test_metrics_are_a_table_if_that_is_asked_for(node_run: NodeRun, here: Path):
    assert node_run(*SPIRAL, "logger=[csv]", "hydra.run.dir=outputs/x").code == 0
    folder = RunFolder(here / "outputs" / "x")
    with folder.table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    lines = list(folder.read_metrics())
    assert [{name: float(cell) for name, cell in row.items() if cell} for row in rows] == lines
    assert len(lines) > 3 and "val/loss" in rows[0]


def test_ctrl_c_names_the_run_that_can_go_on(node_run: NodeRun, signal_at: Callable[[int], None]):
    signal_at(4)
    done = node_run(*SPIRAL, "hydra.run.dir=outputs/x")
    assert done.code == 130
    assert done.last == "node-run: interrupted; `node-run resume outputs/x` goes on"
    assert json.loads(Path("outputs/x/result.json").read_text())["status"] == "interrupted"


def test_ctrl_c_before_the_first_step_leaves_nothing(node_run: NodeRun, here: Path, monkeypatch: pytest.MonkeyPatch):
    def assemble(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("node_runner.runs.run.assemble", assemble)
    done = node_run(*SPIRAL)
    assert (done.code, done.line) == (130, "node-run: interrupted")
    assert list(here.iterdir()) == []


def test_a_folder_with_anything_of_the_user_s_is_never_removed(here: Path):
    run = here / "outputs" / "x"
    (run / ".hydra").mkdir(parents=True)
    (run / ".hydra" / "config.yaml").touch()
    (run / "notes.txt").touch()
    assert not forget(run)
    assert (run / ".hydra" / "config.yaml").exists()
    (run / "notes.txt").rename(run / ".hydra" / "notes.txt")
    assert forget(run)
    assert [file.name for file in here.rglob("*.*") if file.is_file()] == ["notes.txt"]


@pytest.mark.parametrize("pixels", ["gaussianised", "whitened", "logit"])
def test_a_flow_of_images_has_a_density_under_every_map_of_its_pixels(node_run: NodeRun, here: Path, pixels: str):
    small = ("dataset=digits", "dataset.train=40", "dataset.val=8", "dataset.test=8", "engine=torchdiffeq")
    done = node_run(*SHORT, *small, "model=cnf", "trainer.warm_start=3", f"model.pixels={pixels}")
    assert done.code == 0
    (result,) = here.glob("outputs/*/*/result.json")
    metrics = json.loads(result.read_text())["metrics"]
    assert 1 < metrics["val/bits_per_dim"] < 6
    assert metrics["nfe/forward"] > 0


def test_a_warm_start_longer_than_the_run_is_refused(node_run: NodeRun):
    done = node_run("dataset=digits", "model=cnf", "trainer.steps=6")
    assert done.code == 2
    assert "use more steps, or trainer.warm_start=0" in done.line
