"""Adjoints: how the gradient of a solve is computed. Each makes one Integrate from others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from node_runner.registry import Registry


if TYPE_CHECKING:
    from node_runner.types import Adjoint

ADJOINTS: Registry[Adjoint] = Registry("adjoint", "node_runner.adjoints", "ADJOINTS")
