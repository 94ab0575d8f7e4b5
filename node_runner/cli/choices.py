"""What tells runs apart: the settings that differ between their config.yaml files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from node_runner.errors import DataError


IGNORED = ("sweep", "figures", "logger", "trainer.log_every")
"""Keys that change no result."""


def differing(files: Sequence[Path]) -> list[dict[str, Any]]:
    """The settings in which runs differ: for each run a dictionary of its choices, all with the same keys.

    A component stands for its settings: runs of `optimizer=adam` and `optimizer=sgd` differ in
    `optimizer`, and in `optimizer.lr` only if two runs of one optimiser do.
    """
    flat = [_flatten(_read(file)) for file in files]
    keys = list(dict.fromkeys(key for run in flat for key in run))
    chosen = [key for key in keys if _differs(key, flat)]
    return [{key: run.get(key) for key in chosen} for run in flat]


def _differs(key: str, runs: list[dict[str, Any]]) -> bool:
    """Whether runs with the same component around a key differ in it; those with another component may not have it."""
    around = key.rpartition(".")[0]
    seen: dict[Any, list[Any]] = {}
    for run in runs:
        if around in run:
            if key in run:
                seen.setdefault(run[around], []).append(run[key])
        else:
            seen.setdefault(None, []).append(run.get(key))
    return any(value != values[0] for values in seen.values() for value in values)


def _flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"solver": "rk4", "solver.step_size": None, "tolerance.rtol": ...}: a component's name stands under its group."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if name in IGNORED:
            continue
        if isinstance(value, dict):
            if "name" in value:
                flat[name] = value["name"]
            flat |= _flatten({k: v for k, v in value.items() if k != "name"}, f"{name}.")
        else:
            flat[name] = str(value) if isinstance(value, list) else value
    return flat


def _read(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise DataError(f"{file}: not YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(content, dict):
        raise DataError(f"{file}: expected a run's configuration")
    return content
