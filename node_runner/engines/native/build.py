"""Compiles the engine's source for one network, once: what was built is kept on disk by its content."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import shlex
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from node_runner.engines.compiler import compiler
from node_runner.errors import RunError


SOURCE = Path(__file__).parent / "source"
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared", "-w")
"""No -ffast-math: NaN and infinity must be seen. $NODE_RUNNER_CXXFLAGS come after these: -O1 compiles in half
the time."""

log = logging.getLogger("node_runner")


def cache_folder() -> Path:
    """Where libraries are kept: $NODE_RUNNER_CACHE, or node-runner in the user's cache folder."""
    given = os.environ.get("NODE_RUNNER_CACHE")
    if given:
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "node-runner"


def build(defines: Mapping[str, str], about: str) -> tuple[ctypes.CDLL, float]:
    """The library for one network, and the seconds that its compilation took (0: it was there).

    Jobs that build the same one at the same time do not disturb each other: each writes a file of its own and
    then moves it into place.

    Args:
        defines: the macros of the source.
        about: the network in words, for the line that says what is being built.

    Raises:
        RunError: the compiler failed, with its first error.
    """
    path = compiler()
    assert path is not None, "the engine refuses to serve without a compiler"
    more = shlex.split(os.environ.get("NODE_RUNNER_CXXFLAGS", ""))
    options = [*FLAGS, *more, *(["-fopenmp"] if _has_openmp(path) else []), *(f"-D{k}={v}" for k, v in defines.items())]
    folder = cache_folder() / "native"
    target = folder / f"{_key(path, options)}.so"
    seconds = 0.0
    if not target.exists():
        began = time.perf_counter()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".so", delete=False) as partial:
            command = [path, *options, str(SOURCE / "solve.cpp"), "-o", partial.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            Path(partial.name).unlink(missing_ok=True)
            error = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr[:200])
            raise RunError(f"engine=native: {shlex.join(command[:1])} failed on {about}: {error}")
        os.replace(partial.name, target)
        seconds = time.perf_counter() - began
        log.info("engine native: compiled %s in %.1f s, kept in %s", about, seconds, folder)
    return ctypes.CDLL(str(target)), seconds


@functools.cache
def _has_openmp(path: str) -> bool:
    """Whether the compiler can make threads; without, a solve runs on one."""
    command = [path, "-fopenmp", "-shared", "-fPIC", "-x", "c++", "-", "-o", os.devnull]
    return (
        subprocess.run(command, input="#include <omp.h>", capture_output=True, text=True, check=False).returncode == 0
    )


def _key(path: str, options: list[str]) -> str:
    """Names a library by all that its content depends on: source, compiler, options and processor."""
    content = hashlib.sha256()
    for file in sorted(SOURCE.iterdir()):
        content.update(file.name.encode() + file.read_bytes())
    content.update("\0".join([_version(path), _processor(), *options]).encode())
    return content.hexdigest()[:24]


@functools.cache
def _version(path: str) -> str:
    return subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout


@functools.cache
def _processor() -> str:
    """What -march=native depends on: a home folder may be shared by machines that differ."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    kept = [line for line in lines if line.startswith(("model name", "flags", "Features"))]
    return "\n".join(kept[:2]) or str(os.uname())
