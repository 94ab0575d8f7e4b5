"""What the data sets of irregular series share: which times are kept and seen, and statistics of what is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from node_runner.views import Series


def some_of(generator: np.random.Generator, series: int, times: int, kept: int) -> NDArray[np.bool_]:
    """(series, times) true at `kept` times of each series, drawn without replacement."""
    order = generator.random((series, times)).argsort(axis=1)
    chosen = np.zeros((series, times), dtype=bool)
    np.put_along_axis(chosen, order[:, :kept], True, axis=1)
    return chosen


def seen_until(part: Series, end: float) -> Series:
    """Nothing is seen after the time `end`."""
    return replace(part, seen=part.seen & (part.times <= end).unsqueeze(2))


def hide(part: Series, share: float, generator: np.random.Generator) -> Series:
    """Each time at which a series is seen is hidden with probability `share`, in all channels; the first never is."""
    some = part.seen.any(dim=2)
    drawn = torch.from_numpy(generator.random(some.shape) < share)
    return replace(part, seen=part.seen & ~(drawn & (some.cumsum(dim=1) > 1)).unsqueeze(2))


def known_mean_std(part: Series) -> tuple[Tensor, Tensor]:
    """(D,) mean and deviation of the known values of each channel; a channel that does not vary gets 1."""
    count = part.known.sum(dim=(0, 1)).clamp(min=1)
    mean = torch.where(part.known, part.ys, 0).sum(dim=(0, 1)) / count
    std = (torch.where(part.known, part.ys - mean, 0).pow(2).sum(dim=(0, 1)) / count).sqrt()
    return mean, torch.where(std > 0, std, torch.ones_like(std))
