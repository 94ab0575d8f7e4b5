"""A part of gpu_check.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure
from recording import text


@dataclass
class Part:
    """One part of the check.

    Attributes:
        status: passed, failed, or left out.
        summary: in one sentence.
        rows: its table.
        figures: by name.
        seconds: it took.
    """

    status: str
    summary: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    figures: dict[str, Figure] = field(default_factory=dict)
    seconds: float = 0.0


def say(row: Mapping[str, Any]) -> None:
    """One line of progress."""
    print("  " + ", ".join(f"{key} {text(value)}" for key, value in row.items()), flush=True)
