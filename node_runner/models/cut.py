"""Series that are cut short while a model is trained, so that it learns to go on without observations."""

from __future__ import annotations

import torch
from torch import Tensor

from node_runner.views import Lesson


def cut_short(seen: Tensor, lesson: Lesson | None, share: float) -> Tensor:
    """What is seen, (T, B, D): in a `share` of the batches that are taught, nothing after a place drawn uniformly.

    At least the first place of the grid is kept. What is taught does not change, so that values after the place have
    to be forecast, as in the extrapolation of Rubanova, Chen, Duvenaud, Latent ODEs for Irregularly-Sampled Time Series
    (2019), where the first half of each series is read and the second predicted; here the place varies.
    """
    if lesson is None or not share or float(torch.rand(())) >= share:
        return seen
    place = int(torch.randint(1, len(seen), ())) if len(seen) > 1 else 1
    return torch.cat((seen[:place], torch.zeros_like(seen[place:])))
