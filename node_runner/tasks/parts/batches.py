"""Which samples make the batch of a step: a pure function of the seed and the step.

So a resumed run needs to know nothing but its step. Indices are drawn on the CPU, the same on
every device, many steps at a time, and move to the device together; a batch is an index select there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import torch
from torch import Tensor


B = TypeVar("B")


class Shuffled:
    """Every sample once an epoch, in an order of its own each epoch.

    Args:
        count: samples in the training part.
        batch_size: in a batch; the last batch of an epoch may be smaller (None: all of them, in their own order).
        seed: of the orders.
        device: where the indices are wanted.
    """

    def __init__(self, count: int, batch_size: int | None, seed: int, device: torch.device) -> None:
        self.count = count
        self.batch_size = min(batch_size or count, count)
        self.steps_per_epoch = math.ceil(count / self.batch_size)
        self.seed = seed
        self.device = device
        self._epoch = -1
        self._batches: tuple[Tensor, ...] = (torch.arange(count, device=device),)

    def __call__(self, step: int) -> Tensor:
        """Indices (B,) of the batch of step 0, 1, ..."""
        if self.steps_per_epoch == 1:
            return self._batches[0]
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            order = torch.randperm(self.count, generator=generator(self.seed, epoch))
            self._epoch, self._batches = epoch, order.to(self.device).split(self.batch_size)
        return self._batches[position]


class Windows:
    """Segments of trajectories, drawn uniformly with replacement.

    Args:
        lengths: (N,) observed points of each trajectory.
        batch_size: segments in a batch.
        window: points in a segment at its longest.
        seed: of the draws.
        device: where the indices are wanted.
        shared_start: all segments of a batch start at the same index (for times without a
            constant spacing, whose segments could not share a solve otherwise).
    """

    BLOCK = 64
    """Steps that are drawn together."""

    def __init__(
        self, lengths: Tensor, batch_size: int, window: int, seed: int, device: torch.device, shared_start: bool
    ) -> None:
        self.lengths = lengths.to(device)
        self.batch_size = batch_size
        self.steps_per_epoch = max(1, round(float(self.lengths.sum()) / (batch_size * window)))
        self.seed = seed
        self.device = device
        self.shared_start = shared_start
        self._block = -1
        self._drawn = (torch.empty(0), torch.empty(0))

    def left(self, step: int) -> int:
        """Steps from `step` on that are drawn together."""
        return self.BLOCK - step % self.BLOCK

    def __call__(self, step: int, count: int, window: int) -> tuple[Tensor, Tensor]:
        """(trajectory, first point) of each segment of `count` batches from `step` on, (count, B) each.

        `count` is at most `left(step)`.
        """
        block, start = divmod(step, self.BLOCK)
        if block != self._block:
            draws = generator(self.seed, block)
            size = (self.BLOCK, self.batch_size)
            rows = torch.randint(len(self.lengths), size, generator=draws)
            places = torch.rand(size, generator=draws, dtype=torch.float32)
            self._block, self._drawn = block, (rows.to(self.device), places.to(self.device))
        rows, places = (drawn[start : start + count] for drawn in self._drawn)
        if self.shared_start:
            places = places[:, :1].expand_as(places)
            room = (self.lengths.min() - window + 1).clamp(min=1)
        else:
            room = (self.lengths[rows] - window + 1).clamp(min=1)
        return rows, (places * room).long()


class Ahead(Generic[B]):
    """Batches that are made several at a time, so that a step costs a look-up.

    Args:
        make: the batches from a step on, as many as it likes, by their steps.
    """

    def __init__(self, make: Callable[[int], Mapping[int, B]]) -> None:
        self._make = make
        self._ready: Mapping[int, B] = {}

    def __call__(self, step: int) -> B:
        """The batch of a step."""
        if step not in self._ready:
            self._ready = self._make(step)
        return self._ready[step]


def generator(seed: int, part: int) -> torch.Generator:
    """A generator of its own for each part (an epoch, a block of steps) of each seed."""
    return torch.Generator().manual_seed((seed * 1_000_003 + part) % 2**63)
