"""node-runner: train and compare Neural ODEs.

The parts are importable without Hydra; `odeint` and `odeint_adjoint` have torchdiffeq's signature.
Nothing heavy is imported before it is used.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in ("odeint", "odeint_adjoint"):
        from node_runner import drop_in

        return getattr(drop_in, name)
    raise AttributeError(f"module 'node_runner' has no attribute '{name}'")
