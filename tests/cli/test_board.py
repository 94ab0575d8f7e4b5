"""`node-run board`."""

from __future__ import annotations

import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from tensorboard.program import TensorBoardPortInUseError

from node_runner.cli import board
from tests.cli.conftest import NodeRun


class Server:
    """Stands in for TensorBoard."""

    taken = False

    def configure(self, argv: list[str]) -> None:
        self.argv = argv

    def launch(self) -> str:
        print("NOTE: a way of loading\n", file=sys.stderr)
        if "nowhere" in self.argv:
            print("Name or service not known", file=sys.stderr)
            sys.exit(1)
        if self.taken:
            raise TensorBoardPortInUseError("port 7007 is in use")
        return f"http://localhost:7007/ {' '.join(self.argv)}"


class Interrupted:
    """Stands in for the event that never comes."""

    def wait(self) -> None:
        raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tensorboard.program.TensorBoard", Server)
    monkeypatch.setattr(board.threading, "Event", Interrupted)


def test_it_serves_the_folder_until_ctrl_c(node_run: NodeRun, spiral: Path):
    done = node_run("board", "outputs", "--port", "7007")
    assert done.code == 0
    first, last = done.out.splitlines()
    assert first.startswith("1 run below outputs: http://localhost:7007/ ")
    assert "--logdir outputs --host localhost --port 7007" in first
    assert last == "TensorBoard has ended"


def test_a_host_that_there_is_not_is_refused(node_run: NodeRun, spiral: Path):
    done = node_run("board", "outputs", "--host", "nowhere")
    assert done.code == 2
    assert done.line == (
        "node-run: TensorBoard cannot listen on nowhere:6006: Name or service not known; try another --port or --host"
    )


def test_a_port_that_is_taken_is_refused(node_run: NodeRun, spiral: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Server, "taken", True)
    done = node_run("board", "outputs", "--port", "7007")
    assert done.code == 2
    assert done.line.startswith("node-run: TensorBoard cannot listen on localhost:7007: port 7007 is in use")


@pytest.mark.slow
def test_tensorboard_itself_answers(spiral: Path, environment: dict[str, str]):
    program = subprocess.Popen(
        [sys.executable, "-m", "node_runner.cli.main", "board", "outputs"],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    with program:
        assert program.stdout is not None
        address = next(word for word in program.stdout.readline().split() if word.startswith("http"))
        with urllib.request.urlopen(address, timeout=60) as page:
            assert page.status == 200
        program.send_signal(signal.SIGINT)
        said, _ = program.communicate(timeout=60)
    assert said == "TensorBoard has ended\n"
    assert program.returncode == 0
