"""Figures of a run, chosen by what it learned from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from matplotlib.figure import Figure
from torch import nn

from node_runner.types import Dataset, DataSpec, Splits


def draw(model: nn.Module, spec: DataSpec, splits: Splits[Any], dataset: Dataset) -> Iterator[tuple[str, Figure]]:
    """(name, figure) of everything worth a look after training."""
    return iter(())
