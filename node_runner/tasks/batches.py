"""Which samples make the batch of a step: a pure function of the seed and the step.

So a resumed run needs to know nothing but its step. Indices are drawn on the CPU, the same on
every device, once an epoch, and move to the device together; a batch is an index select there.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Shuffled:
    """Every sample once an epoch, in an order of its own each epoch.

    Args:
        count: samples in the training part.
        batch_size: in a batch; the last batch of an epoch may be smaller (None: all of them).
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
        self._order: Tensor | None = None

    def __call__(self, step: int) -> Tensor:
        """Indices (B,) of the batch of step 0, 1, ..."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch or self._order is None:
            order = torch.randperm(self.count, generator=epoch_generator(self.seed, epoch))
            self._epoch, self._order = epoch, order.to(self.device)
        start = position * self.batch_size
        return self._order[start : start + self.batch_size]


class Windows:
    """Segments of trajectories, drawn uniformly with replacement.

    Args:
        lengths: (N,) observed points of each trajectory.
        batch_size: segments in a batch.
        seed: of the draws.
        device: where the indices are wanted.
        shared_start: all segments of a batch start at the same index (for times without a
            constant spacing, whose segments could not share a solve otherwise).
    """

    def __init__(
        self, lengths: Tensor, batch_size: int, window: int, seed: int, device: torch.device, shared_start: bool
    ) -> None:
        self.lengths = lengths.to(device)
        self.batch_size = batch_size
        self.steps_per_epoch = max(1, round(float(self.lengths.sum()) / (batch_size * window)))
        self.seed = seed
        self.device = device
        self.shared_start = shared_start
        self._epoch = -1
        self._drawn: tuple[Tensor, Tensor] | None = None

    def __call__(self, step: int, window: int) -> tuple[Tensor, Tensor]:
        """(trajectory (B,), first point (B,)) of each segment of the batch of step 0, 1, ..."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch or self._drawn is None:
            generator = epoch_generator(self.seed, epoch)
            size = (self.steps_per_epoch, self.batch_size)
            rows = torch.randint(len(self.lengths), size, generator=generator)
            places = torch.rand(size, generator=generator, dtype=torch.float32)
            self._epoch, self._drawn = epoch, (rows.to(self.device), places.to(self.device))
        rows, places = (drawn[position] for drawn in self._drawn)
        if self.shared_start:
            places = places[:1].expand_as(places)
            room = (self.lengths.min() - window + 1).clamp(min=1).expand_as(rows)
        else:
            room = (self.lengths[rows] - window + 1).clamp(min=1)
        first = (places * room).long()
        return rows, first


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """A generator of its own for each epoch of each seed."""
    return torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
