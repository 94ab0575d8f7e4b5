"""Series that are cut short while a model is trained, so that it learns to go on without observations."""

from __future__ import annotations

import torch
from torch import Tensor

from node_runner.batches import Lesson, of_each
from node_runner.models.parts.own_times import Together


def cut_short(ts: Tensor, seen: Tensor, lesson: Lesson | None, share: float) -> Tensor:
    """What is seen, (T, B, D): in a `share` of the batches that are taught, nothing from a time on.

    That is drawn uniformly among the times of the batch, ts (T,) or (T, B), but for the first. What is taught does not
    change, so that later values have to be forecast, as in the extrapolation of Rubanova, Chen, Duvenaud, Latent ODEs
    for Irregularly-Sampled Time Series (2019), where the first half of each series is read and the second predicted;
    here the time varies.
    """
    if lesson is None or not share or float(torch.rand(())) >= share:
        return seen
    grid = Together(ts).ts
    if len(grid) == 1:
        return seen
    early = of_each(ts, seen.shape[1]) < grid[int(torch.randint(1, len(grid), ()))]
    return seen & early.unsqueeze(2)
