"""Whether calls may go to an engine of ours at all."""

from __future__ import annotations

import os


_given: bool | None = None


def fast_path(on: bool | None) -> None:
    """Let engines serve calls (true), send every call to torchdiffeq (false), or do as NODE_RUNNER_FAST says (None).

    NODE_RUNNER_FAST=0 in the environment switches off; it is on otherwise.
    """
    global _given
    _given = on


def is_on() -> bool:
    """Whether engines may serve calls."""
    return os.environ.get("NODE_RUNNER_FAST", "1") != "0" if _given is None else _given
