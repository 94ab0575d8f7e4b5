"""What a person waits for most often imports nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


HEAVY = {"torch", "torchvision", "torchdiffeq", "scipy", "sklearn", "matplotlib", "tensorboard", "numpy", "pandas"}


def imported(arguments: list[str], environment: dict[str, str], folder: Path) -> set[str]:
    """Top-level modules that a call of the program imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "node_runner.cli.main", *arguments],
        capture_output=True, text=True, env=environment, cwd=folder, timeout=120, check=True,
    )  # fmt: skip
    assert done.stdout
    lines = [line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.split(".")[0] for line in lines}


@pytest.mark.parametrize(
    ("arguments", "too_heavy"),
    [
        (["--version"], {"hydra", "omegaconf", "rich", "pydantic"}),
        (["--help"], {"hydra", "omegaconf", "pydantic"}),
        (["list"], {"hydra", "omegaconf"}),
        (["--cfg", "job"], {"pydantic"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_nothing_heavy_is_imported(
    arguments: list[str], too_heavy: set[str], environment: dict[str, str], tmp_path: Path
):
    assert imported(arguments, environment, tmp_path) & (HEAVY | too_heavy) == set()
    assert list(tmp_path.iterdir()) == []
