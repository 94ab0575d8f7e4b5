"""Engines: the loops that run a solver's method."""

from __future__ import annotations

from typing import TYPE_CHECKING

from node_runner.registry import Registry


if TYPE_CHECKING:
    from node_runner.types import Engine

ENGINES: Registry[Engine] = Registry("engine", "node_runner.engines", "ENGINES")
