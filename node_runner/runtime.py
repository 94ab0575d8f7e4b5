"""The machine under a run: seed, device, precision, threads, and the record of it all."""

from __future__ import annotations

import os
import platform
import random
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from node_runner.errors import ConfigError
from node_runner.settings import DeviceConfig, Place, Precision


PACKAGES = (
    "torch",
    "torchvision",
    "torchdiffeq",
    "torchsde",
    "hydra-core",
    "omegaconf",
    "numpy",
    "scipy",
    "tensorboard",
)


def choose_device(place: Place) -> torch.device:
    """The device that `place` means here.

    Raises:
        ConfigError: it is not there, with what to use instead.
    """
    if place is Place.auto:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if place is Place.cuda and not torch.cuda.is_available():
        why = "this PyTorch has no CUDA" if torch.version.cuda is None else "no CUDA GPU is visible"
        raise ConfigError(f"device=cuda: {why}; use device=cpu or device=auto, and see `node-run doctor`")
    if place is Place.mps and not torch.backends.mps.is_available():
        raise ConfigError("device=mps: no Apple GPU is available to PyTorch here; use device=cpu or device=auto")
    return torch.device(place.value)


def choose_dtype(precision: Precision) -> torch.dtype:
    """The floating point type of data, parameters and solves."""
    return torch.float64 if precision is Precision.float64 else torch.float32


def set_up(config: DeviceConfig, seed: int) -> tuple[torch.device, torch.dtype]:
    """Seed every generator, set threads and determinism; the device and dtype of the run.

    Raises:
        ConfigError: a device that is not here, or that has no such precision.
    """
    device, dtype = choose_device(config.place), choose_dtype(config.precision)
    if device.type == "mps" and dtype is torch.float64:
        raise ConfigError("device=mps has no float64: use device.precision=float32 or device=cpu")
    torch.set_num_threads(config.threads or default_threads())
    allow_tf32(config.tf32)
    # The call imports torch's compiler, which takes seconds: only where it changes something.
    if torch.are_deterministic_algorithms_enabled() != config.deterministic:
        torch.use_deterministic_algorithms(config.deterministic)
    if config.deterministic:
        # cuBLAS needs a fixed workspace to be deterministic; it reads this before its first use.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    set_seed(seed)
    return device, dtype


def allow_tf32(allowed: bool) -> None:
    """Let float32 matrix products, convolutions and recurrent layers on CUDA round to TF32, or not.

    These two switches set torch's newer `fp32_precision` of each with them. Set by itself, that one would
    make torch raise wherever these are read, as its compiler and `torch.backends.cudnn.flags` do.
    """
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def default_threads() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_seed(seed: int) -> None:
    """Seed Python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - libraries that use the global state exist
    torch.manual_seed(seed)


def rng_state() -> dict[str, Any]:
    """State of torch's generators, for a checkpoint."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_rng(state: dict[str, Any]) -> None:
    """Undo `rng_state`. A CUDA state is restored where as many GPUs are visible as it was taken from."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available() and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all(state["cuda"])


def package_versions() -> dict[str, str]:
    """Installed version of each package that results depend on."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def git_state(folder: Path) -> dict[str, Any]:
    """Commit of the checkout that `folder` is in, and whether it has uncommitted changes."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    if commit is None:
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}


def environment(device: torch.device, dtype: torch.dtype, seed: int) -> dict[str, Any]:
    """What a result depends on beside its configuration."""
    import node_runner

    return {
        "node_runner": node_runner.__version__,
        "git": git_state(Path(node_runner.__file__).parent),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "cores": default_threads(),
        "packages": package_versions(),
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "cuda": torch.version.cuda,
        "dtype": str(dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "tf32": torch.backends.cudnn.allow_tf32,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "seed": seed,
    }


def processor() -> str:
    """Name of the CPU, as well as the platform tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def synchronise(device: torch.device) -> None:
    """Wait for the device to finish what was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
