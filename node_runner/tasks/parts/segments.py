"""Trajectories and segments of them, as batches."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from node_runner.batches import TrajectoryBatch
from node_runner.errors import ConfigError
from node_runner.settings import TrainerConfig
from node_runner.views import Trajectories


def window_lengths(config: TrainerConfig, times: int) -> tuple[int, int]:
    """Points in a segment, at its longest and at the start of a curriculum.

    Raises:
        ConfigError: they do not fit the trajectories or each other.
    """
    full = config.window or times
    start = config.window_start or full
    if full > times:
        raise ConfigError(f"trainer.window={full}: trajectories have only {times} points; use trainer.window=null")
    if start > full:
        raise ConfigError(f"trainer.window_start={start}: expected at most trainer.window={full}")
    return full, start


def growing(start: int, full: int, share: float, progress: Callable[[int], float]) -> Callable[[int], int]:
    """Points in the segments of each step: `full` from that share of the training on, evenly from `start` up to it."""

    def length(step: int) -> int:
        done = min(1.0, progress(step) / share) if share else 1.0
        return round(start + (full - start) * done)

    return length


def evenly_spaced(ts: Tensor) -> bool:
    """Whether times (T,), at least two, have a constant spacing, up to the rounding of float32."""
    spacing = ts.diff()
    return torch.allclose(spacing, spacing[0].expand_as(spacing), rtol=1e-4)


def whole(part: Trajectories, rows: Tensor) -> TrajectoryBatch:
    """Whole trajectories, (T, B, D)."""
    mask = None if part.mask is None else part.mask[rows].T
    t0 = part.ts[:1].expand(len(rows))
    return TrajectoryBatch(part.ts - part.ts[0], t0, part.ys.index_select(0, rows).transpose(0, 1), mask, rows)


class Segments:
    """Cuts segments out of trajectories.

    Args:
        part: the trajectories.

    Attributes:
        even: whether the times have a constant spacing, so that all segments share their times. Otherwise
            the segments of a batch must start together, and have the times from there on.
        lengths: (N,) points of each trajectory up to the last that was observed.
        begins: (N, T) for each point the last one up to it that was observed, from which a segment can start
            (None: there are no gaps).
    """

    def __init__(self, part: Trajectories) -> None:
        self.part = part
        self.even = evenly_spaced(part.ts)
        self._since_start = part.ts - part.ts[0]
        self._times: dict[int, Tensor] = {}
        self.lengths = torch.full((len(part),), len(part.ts))
        self.begins: Tensor | None = None
        if part.mask is not None:
            places = torch.arange(len(part.ts), device=part.mask.device)
            last = torch.where(part.mask, places, 0).cummax(dim=1).values
            self.lengths = last[:, -1] + 1
            if bool((part.mask.sum(dim=1) < self.lengths).any()):
                self.begins = last

    def __call__(self, rows: Tensor, first: Tensor, length: int) -> list[TrajectoryBatch]:
        """S batches of segments of `length` points, from index `first` (S, B) of trajectories `rows` (S, B)."""
        part = self.part
        if self.begins is not None:
            first = self.begins[rows, first]
        points = first.unsqueeze(1) + torch.arange(length, device=rows.device).unsqueeze(1)  # (S, T, B)
        places = rows.unsqueeze(1) * len(part.ts) + points
        # Rows of a matrix: three times as fast as an index for each axis.
        ys = part.ys.flatten(0, 1).index_select(0, places.flatten()).unflatten(0, places.shape).unbind()
        masks = [None] * len(ys) if part.mask is None else part.mask.flatten()[places].unbind()
        if self.even:
            # The same tensor in every batch of a length: who has read it once need not wait for the device again.
            shared = self._times.setdefault(length, self._since_start[:length])
            times = [shared] * len(ys)
        else:
            since_first = part.ts[points[:, :, 0]]
            times = list((since_first - since_first[:, :1]).unbind())
        starts = part.ts[first].unbind()
        return list(map(TrajectoryBatch, times, starts, ys, masks))
