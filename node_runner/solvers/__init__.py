"""Integration methods, as data: an engine runs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from node_runner.registry import Registry


if TYPE_CHECKING:
    from node_runner.types import Method

SOLVERS: Registry[Method] = Registry("solver", "node_runner.solvers", "SOLVERS")
