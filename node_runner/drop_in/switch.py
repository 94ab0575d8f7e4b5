"""Whether calls may go to an engine of ours at all, and whether one may compile for them."""

from __future__ import annotations

import os
from typing import Literal

from node_runner.errors import ConfigError


Fast = bool | Literal["compiled"]
"""False: torchdiffeq serves every call. True: engine=native what it can. "compiled": engine=compiled the others."""

SPELLINGS: dict[str, Fast] = {"": True, "1": True, "0": False, "compiled": "compiled"}
"""What NODE_RUNNER_FAST may be."""

_given: Fast | None = None


def fast_path(on: Fast | None) -> None:
    """Choose who may serve calls.

    Args:
        on: False sends every call to torchdiffeq. True lets engine=native serve what it can, which compiles once for
            each network, for some three seconds. "compiled" has engine=compiled serve any other field that is a
            graph of operations: it takes 2 to 25 seconds for each field, method, and shape of the state, and again
            for gradients. None does as NODE_RUNNER_FAST in the environment says: 0, 1 (or nothing: the default), or
            compiled.

    Raises:
        ConfigError: it is something else.
    """
    global _given
    if on is not None and on not in (False, True, "compiled"):
        raise ConfigError(f'fast_path takes True, False, "compiled" or None, got {on!r}')
    _given = on


def chosen() -> Fast:
    """What was chosen.

    Raises:
        ConfigError: NODE_RUNNER_FAST is none of what it may be.
    """
    if _given is not None:
        return _given
    spelled = os.environ.get("NODE_RUNNER_FAST", "")
    if spelled not in SPELLINGS:
        raise ConfigError(f"NODE_RUNNER_FAST is {spelled!r}: it may be 0, 1 or compiled")
    return SPELLINGS[spelled]
