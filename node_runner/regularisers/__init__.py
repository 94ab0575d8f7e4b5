"""Regularisers: quantities integrated along a solve and added to the loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from node_runner.registry import Registry


if TYPE_CHECKING:
    from node_runner.learning import Regulariser

REGULARISERS: Registry[Regulariser] = Registry("regulariser", "node_runner.regularisers", "REGULARISERS")
