"""Data sets, one file each: `configs/dataset/NAME.yaml` chooses one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from node_runner.registry import Registry


if TYPE_CHECKING:
    from node_runner.views import Dataset

DATASETS: Registry[Dataset] = Registry("dataset", "node_runner.datasets", "DATASETS")
