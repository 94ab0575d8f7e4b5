"""Checkpoints: plain containers of tensors and numbers, written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from node_runner.errors import ConfigError, DataError


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


def put(weights: dict[str, Any], model: nn.Module, about: str) -> None:
    """Put the weights of a checkpoint into a model.

    Args:
        weights: by name.
        model: that gets them.
        about: how an error begins.

    Raises:
        ConfigError: they are those of another model.
    """
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise ConfigError(f"{about}: the weights do not fit the model that is asked for: {reason}") from error
