"""`node-run doctor`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from node_runner.cli.doctor import command as doctor
from node_runner.cli.doctor.thread_timing import Timing, _fastest, recommend, time_threads
from tests.cli.conftest import NodeRun


@pytest.fixture(autouse=True)
def no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    def timings() -> Iterator[Timing]:
        yield Timing("small solve", "what it is", {1: 10.0, 4: 12.0})
        yield Timing("convolutional solve", "what it is", {1: 100.0, 4: 40.0})

    monkeypatch.setattr(doctor, "time_threads", timings)
    monkeypatch.setattr("os.getloadavg", lambda: (0.5, 0.5, 0.5))


def test_every_line_says_what_it_means(node_run: NodeRun, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NODE_RUNNER_DATA", raising=False)
    done = node_run("doctor")
    assert done.code == 0
    for name in ("node-runner", "python", "torch", "torchdiffeq", "processor", "C++ compiler", "cores", "mnist",
                 "free disk", "write access"):  # fmt: skip
        assert name in done.out
    assert "4 of 4 files missing" in done.out and "data/MNIST/raw (NODE_RUNNER_DATA is not set)" in done.out
    assert "device.threads=1 for a small solve, device.threads=4 for a convolutional solve" in done.out


def test_problems_are_marked_and_still_no_failure(node_run: NodeRun, here: Path, monkeypatch: pytest.MonkeyPatch):
    raw = here / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        (raw / name).write_bytes(b"cut short")
    monkeypatch.setenv("NODE_RUNNER_DATA", str(here / "data"))
    monkeypatch.setattr(doctor, "LOW_DISK", 1e12)
    done = node_run("doctor")
    assert done.code == 0
    assert done.out.splitlines()[-1] == "2 problems"
    marked = [line for line in done.out.splitlines() if line.startswith("problem")]
    assert "altered: train-images-idx3-ubyte, train-labels-idx1-ubyte" in marked[0]
    assert "free disk" in marked[1]


def test_why_there_is_no_gpu_is_said(node_run: NodeRun):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    line = next(line for line in node_run("doctor").out.splitlines() if " cuda " in line)
    assert "PyTorch" in line or "CUDA_VISIBLE_DEVICES" in line


def test_threads_are_not_measured_while_others_want_the_cores(node_run: NodeRun, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.getloadavg", lambda: (1000.0, 0.5, 0.5))
    done = node_run("doctor")
    assert done.code == 0 and "1000 processes want" in done.out and "convolutional solve" not in done.out


def test_more_threads_are_recommended_only_if_clearly_faster():
    assert recommend(Timing("", "", {1: 10.0, 2: 9.5})) == 1
    assert recommend(Timing("", "", {1: 10.0, 2: 5.0})) == 2
    assert recommend(Timing("", "", {1: 10.0})) == 1


def test_a_slow_solve_is_timed_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("node_runner.cli.doctor.thread_timing.BUDGET_S", 1e-9)
    calls: list[None] = []
    assert _fastest(lambda: calls.append(None)) > 0
    assert len(calls) == 1


def test_threads_are_measured_and_left_as_they_were(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("node_runner.cli.doctor.thread_timing.default_threads", lambda: 1)
    monkeypatch.setattr("node_runner.cli.doctor.thread_timing.REPEATS", 1)
    timings = list(time_threads())
    assert [timing.name for timing in timings] == ["small solve", "convolutional solve"]
    assert all(ms > 0 for timing in timings for ms in timing.ms.values())
    assert torch.get_num_threads() == 1
