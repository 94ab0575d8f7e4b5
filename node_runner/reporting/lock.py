"""One process at a time in a run's folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from node_runner.errors import ConfigError


NAME = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Within this block no other process writes the run in `folder`, which is made if it is missing.

    The lock is one of the operating system on a file that holds the number of the process, so the lock of a
    process that died is gone with it.

    Raises:
        ConfigError: another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / NAME
    descriptor = _hold(file)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        file.unlink(missing_ok=True)
        os.close(descriptor)


def _hold(file: Path) -> int:
    """A descriptor of the file, with its lock."""
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            process = os.read(descriptor, 20).decode().strip()
            os.close(descriptor)
            who = f"process {process}" if process else "another process"
            raise ConfigError(f"{file.parent}: {who} is writing this run; wait for its end, or stop it") from None
        if _is(file, descriptor):
            return descriptor
        os.close(descriptor)


def _is(file: Path, descriptor: int) -> bool:
    """Whether the name still leads to the opened file.

    Between opening and locking, the process before may have ended and taken the file with it, and the next one made
    another. To ask whether there is one and then which would leave a moment between the two.
    """
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False
