"""Checkpoints: plain containers of tensors and numbers, written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from node_runner.errors import DataError


FORMAT = 2


def save(path: Path, state: dict[str, Any]) -> None:
    """Write `state` so that a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save({"format": FORMAT, **state}, partial)
    os.replace(partial, path)


def load(path: Path, device: torch.device) -> dict[str, Any]:
    """Read a checkpoint.

    Raises:
        DataError: there is none, it cannot be read, or it is of another format.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such checkpoint; the run has not reached its first validation")
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise DataError(f"{path}: cannot be read as a checkpoint ({type(error).__name__}); is it truncated?") from error
    if state.get("format") != FORMAT:
        raise DataError(f"{path}: a checkpoint of format {state.get('format')}, and this version reads {FORMAT}")
    return state
