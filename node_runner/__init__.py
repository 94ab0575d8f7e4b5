"""node-runner: train and compare Neural ODEs.

For notebooks and scripts: `dataset`, `solver`, `model`, `fit` and `load` (see `node_runner.library`), and `odeint`,
`odeint_adjoint` and `odeint_event` with torchdiffeq's signatures, `explain` and `fast_path` beside them (see
`node_runner.drop_in`). Nothing heavy is imported before it is used.
"""

from __future__ import annotations

import importlib
from typing import Any


__version__ = "0.1.0"


_HOMES = {
    "dataset": "library",
    "solver": "library",
    "model": "library",
    "fit": "library",
    "load": "library",
    "odeint": "drop_in",
    "odeint_adjoint": "drop_in",
    "odeint_event": "drop_in",
    "explain": "drop_in",
    "fast_path": "drop_in",
}


__all__ = ["__version__", *_HOMES]


def __dir__() -> list[str]:
    """For the completion of a notebook: what is imported on first use, and nothing of the plumbing."""
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"node_runner.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'node_runner' has no attribute '{name}'")
