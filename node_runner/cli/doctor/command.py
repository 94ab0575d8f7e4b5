"""`node-run doctor`: what this machine offers, and what to set because of it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

import node_runner
from node_runner.cli.doctor.thread_timing import Timing, recommend, time_threads
from node_runner.cli.tables import Cell, Row, show
from node_runner.engines.compiler import compiler
from node_runner.engines.native.build import cache_folder
from node_runner.runtime import default_threads, package_versions, processor


GIB = 2**30

LOW_DISK = 1.0
"""GiB: a run with checkpoints, figures and events takes a few MiB, MNIST 64 MiB."""


class Finding(NamedTuple):
    """One line: what was looked at, what was found, what it means, and whether it is a problem."""

    name: str
    found: str
    means: str
    problem: bool = False


def doctor() -> None:
    """Look at everything and print a line each; problems are marked, and the exit code is 0 all the same."""
    findings = [*_versions(), *_devices(), _compiler(), _threads(), *_mnist(), *_disk(), *_solves()]
    rows: list[Row] = [
        (Cell("problem", "") if finding.problem else "ok", finding.name, finding.found, finding.means)
        for finding in findings
    ]
    show(("", "what", "found", "what it means"), rows)
    problems = sum(finding.problem for finding in findings)
    print(f"{problems} problem{'s' * (problems != 1)}" if problems else "no problems")


def _versions() -> Iterator[Finding]:
    yield Finding("node-runner", node_runner.__version__, str(Path(node_runner.__file__).parent))
    old = sys.version_info < (3, 11)
    new = sys.version_info >= (3, 14)
    means = "too new: no release of hydra-core runs on it; use 3.11 to 3.13" if new else "3.11 to 3.13 are supported"
    yield Finding("python", platform.python_version(), means, old or new)
    for name, version in package_versions().items():
        missing = version == "not installed"
        yield Finding(name, version, f"pip install {name}" if missing else "", missing)


def _devices() -> Iterator[Finding]:
    yield Finding("processor", processor(), f"{platform.system()} {platform.machine()}")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            memory = f"{properties.total_memory / GIB:.0f} GiB"
            yield Finding(f"cuda:{index}", f"{properties.name}, {memory}", "device=auto uses the first one")
    else:
        yield Finding("cuda", "none", f"{_no_cuda()}; device=auto and device=cpu use the CPU")
    if torch.backends.mps.is_available():
        yield Finding("mps", "an Apple GPU", "device=mps uses it, in float32")


def _no_cuda() -> str:
    if torch.version.cuda is None:
        return "this PyTorch was built without CUDA"
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return "CUDA_VISIBLE_DEVICES hides all GPUs"
    if shutil.which("nvidia-smi") is None:
        return f"PyTorch is built for CUDA {torch.version.cuda}, and no NVIDIA driver is installed (no nvidia-smi)"
    return f"PyTorch (CUDA {torch.version.cuda}) cannot use the driver that is installed: is it too old? see nvidia-smi"


def _compiler() -> Finding:
    path = compiler()
    if path is None:
        return Finding("C++ compiler", "none", "engine=native and engine=compiled need one: install g++ or clang")
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    version = (done.stdout.splitlines() or ["found"])[0]
    return Finding("C++ compiler", path, f"{version}; engine=native keeps what it builds in {cache_folder()}")


def _threads() -> Finding:
    found = f"{default_threads()} of {os.cpu_count()}"
    return Finding(
        "cores", found, f"by itself torch takes {torch.get_num_threads()} threads; device.threads is for runs"
    )


def _mnist() -> Iterator[Finding]:
    from node_runner.datasets.parts.mnist_files import FILES, difference

    given = os.environ.get("NODE_RUNNER_DATA")
    folder = Path(given or "data").expanduser().absolute() / "MNIST" / "raw"
    where = f"looked in {folder} ({'NODE_RUNNER_DATA' if given else 'NODE_RUNNER_DATA is not set'})"
    missing = [name for name in FILES if not (folder / name).exists()]
    altered = [name for name in FILES if name not in missing and difference(folder / name)]
    if altered:
        yield Finding("mnist", f"altered: {', '.join(altered)}", f"{where}; delete them, to download them again", True)
    elif missing:
        yield Finding("mnist", f"{len(missing)} of 4 files missing", f"{where}; the first run downloads them")
    else:
        yield Finding("mnist", "found, the official files", where)


def _disk() -> Iterator[Finding]:
    place = Path.cwd()
    free = shutil.disk_usage(place).free / GIB
    yield Finding("free disk", f"{free:.1f} GiB", f"for {place / 'outputs'}; a run takes a few MiB", free < LOW_DISK)
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        yield Finding("write access", f"none: {error.strerror}", f"runs are kept below {place}", True)
    else:
        yield Finding("write access", "yes", f"runs are kept below {place / 'outputs'}")


def _solves() -> Iterator[Finding]:
    """Two solves with one thread and with all, unless the cores are taken: that would take long, and tell nothing."""
    wanted = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if wanted > 2 * default_threads():
        means = (
            f"{wanted:.0f} processes want {default_threads()} cores, so more threads are not measured; 1 is the default"
        )
        yield Finding("recommended", "device.threads=1", means)
        return
    print("measuring two solves with one thread and with all, some seconds ...", file=sys.stderr, flush=True)
    timings = list(time_threads())
    yield from map(_timing, timings)
    yield _recommendation(timings)


def _timing(timing: Timing) -> Finding:
    parts = ", ".join(f"{threads} thread{'s' * (threads > 1)} {ms:.1f} ms" for threads, ms in timing.ms.items())
    return Finding(timing.name, parts, timing.what)


def _recommendation(timings: list[Timing]) -> Finding:
    choices = {timing.name: recommend(timing) for timing in timings}
    if len(set(choices.values())) == 1:
        threads = next(iter(choices.values()))
        return Finding("recommended", f"device.threads={threads}", "fastest for both solves; 1 is the default")
    found = ", ".join(f"device.threads={threads} for a {name}" for name, threads in choices.items())
    return Finding("recommended", found, "1 is the default")
