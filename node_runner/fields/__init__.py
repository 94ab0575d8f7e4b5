"""Vector fields f(t, y): the networks that are integrated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from node_runner.registry import Registry


if TYPE_CHECKING:
    from torch import nn

FIELDS: Registry[nn.Module] = Registry("field", "node_runner.fields", "FIELDS")
