"""Models: what is made of a vector field, a solve and the data's shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

from node_runner.registry import Registry


if TYPE_CHECKING:
    from torch import nn

MODELS: Registry[nn.Module] = Registry("model", "node_runner.models", "MODELS")
