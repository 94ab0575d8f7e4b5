"""One process at a time in a run's folder."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from node_runner.errors import ConfigError
from node_runner.reporting.lock import NAME, locked


HOLD = "import sys; from pathlib import Path; from node_runner.reporting.lock import locked\n" \
       "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"  # fmt: skip


def held_by_another(folder: Path) -> subprocess.Popen[str]:
    """A process that has the lock until it is killed."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_lock_holds_the_number_of_its_process_and_is_gone_afterwards(tmp_path: Path):
    with locked(tmp_path / "run"):
        assert (tmp_path / "run" / NAME).read_text() == f"{os.getpid()}\n"
    assert list((tmp_path / "run").iterdir()) == []


def test_it_is_gone_after_an_error_too(tmp_path: Path):
    with pytest.raises(RuntimeError), locked(tmp_path):
        raise RuntimeError
    assert not (tmp_path / NAME).exists()


def test_a_second_one_is_refused_and_leaves_the_first_alone(tmp_path: Path):
    with locked(tmp_path):
        with pytest.raises(ConfigError, match=f"process {os.getpid()} is writing this run"), locked(tmp_path):
            pass
        assert (tmp_path / NAME).exists()
    with locked(tmp_path):
        pass


def test_another_process_is_named_and_its_lock_dies_with_it(tmp_path: Path):
    with held_by_another(tmp_path) as other:
        try:
            with pytest.raises(ConfigError, match=f"process {other.pid} is writing this run"), locked(tmp_path):
                pass
        finally:
            other.kill()
    assert (tmp_path / NAME).exists()  # it was killed, and could not take its file away
    with locked(tmp_path):
        assert (tmp_path / NAME).read_text() == f"{os.getpid()}\n"


def test_a_file_left_by_a_process_that_is_no_more_is_taken_over(tmp_path: Path):
    (tmp_path / NAME).write_text("123456789012345\n")
    with locked(tmp_path):
        assert (tmp_path / NAME).read_text() == f"{os.getpid()}\n"


def test_a_file_that_goes_between_opening_and_locking_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lock, left = fcntl.flock, 2

    def flock(descriptor: int, operation: int) -> None:
        nonlocal left
        lock(descriptor, operation)
        if left:  # as if the process before had ended just now
            left -= 1
            (tmp_path / NAME).unlink()

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(tmp_path):
        assert left == 0
        assert (tmp_path / NAME).read_text() == f"{os.getpid()}\n"


def test_of_many_at_once_one_holds_it(tmp_path: Path):
    # Each takes the lock 100 times; a counter that is read and written under it must not lose a turn.
    code = (
        "import sys, time; from pathlib import Path; from node_runner.errors import ConfigError\n"
        "from node_runner.reporting.lock import locked\n"
        "folder, turns = Path(sys.argv[1]), 0\n"
        "while turns < 100:\n"
        "    try:\n"
        "        with locked(folder):\n"
        "            count = int((folder / 'count').read_text()); time.sleep(0.0001)\n"
        "            (folder / 'count').write_text(str(count + 1)); turns += 1\n"
        "    except ConfigError: pass\n"
    )
    (tmp_path / "count").write_text("0")
    processes = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert (tmp_path / "count").read_text() == "300"
