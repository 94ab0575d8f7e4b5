"""Path classification: to which class does an irregularly observed series belong?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from node_runner.batches import PathBatch
from node_runner.errors import ConfigError
from node_runner.learning import ModelOutput
from node_runner.tasks.classification import Classification
from node_runner.tasks.series import times_of
from node_runner.views import Series, View


class PathClassification(Classification):
    """Classification of whole series."""

    name = "path classification"
    view = View.paths

    def _batch(self, part: Any, rows: Tensor) -> Any:
        return path_batch(part, rows)

    def _classify(self, model: nn.Module, batch: Any) -> ModelOutput:
        output: ModelOutput = model(batch.ts, batch.values, batch.seen)
        return output


def path_batch(part: Series, rows: Tensor) -> PathBatch:
    """Series `rows` (B,), (T, B, D), with nothing left of the values that a model may not see.

    Raises:
        ConfigError: the series have no classes.
    """
    if part.labels is None:
        raise ConfigError("these series have no classes; use a data set that offers the view 'paths'")
    ts = times_of(part, rows)
    ys, seen = (x.index_select(0, rows)[:, : len(ts)].transpose(0, 1) for x in (part.ys, part.seen))
    return PathBatch(ts, torch.where(seen, ys, 0), seen, part.labels.index_select(0, rows))
