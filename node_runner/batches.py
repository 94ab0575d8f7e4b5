"""What a model is given of a view at a time.

Shapes: B batch, T times, D state, P pixels or features.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class TrajectoryBatch(NamedTuple):
    """Segments of trajectories.

    ts: (T,) times from the start of each segment; t0: (B,) time at which each segment starts;
    ys: (T, B, D) observed states; mask: (T, B) or None; rows: (B,) which trajectories of their part they are, where
    they are whole.
    """

    ts: Tensor
    t0: Tensor
    ys: Tensor
    mask: Tensor | None
    rows: Tensor | None = None


class LabelledBatch(NamedTuple):
    """x: (B, P...), y: (B,)."""

    x: Tensor
    y: Tensor


class PointBatch(NamedTuple):
    """x: (B, D...)."""

    x: Tensor


class Lesson(NamedTuple):
    """What a model that has an objective of its own is taught by.

    target: (T, B, D) values; known: (T, B, D) true where there is one; progress: share of the training that is done.
    """

    target: Tensor
    known: Tensor
    progress: float


def of_each(ts: Tensor, count: int) -> Tensor:
    """Times (T, B) of each of `count` series in a batch: ts (T,), which they share, or (T, B)."""
    return ts if ts.dim() == 2 else ts.unsqueeze(1).expand(-1, count)


class SeriesBatch(NamedTuple):
    """Series to be predicted.

    ts: (T,), or (T, B) where each has times of its own (see `views.Series`); values: (T, B, D), 0 where not seen; seen:
    (T, B, D); and what is taught.
    """

    ts: Tensor
    values: Tensor
    seen: Tensor
    lesson: Lesson

    @property
    def times(self) -> Tensor:
        """(T, B) of each series, shared or not."""
        return of_each(self.ts, self.values.shape[1])


class PathBatch(NamedTuple):
    """Series to be classified. ts, values and seen as of a `SeriesBatch`, y: (B,)."""

    ts: Tensor
    values: Tensor
    seen: Tensor
    y: Tensor

    @property
    def times(self) -> Tensor:
        """(T, B) of each series, shared or not."""
        return of_each(self.ts, self.values.shape[1])
