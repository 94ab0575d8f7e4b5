"""Irregular observations, packed so that a recurrence makes no step where nothing was seen."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from node_runner.batches import of_each


class Observations(NamedTuple):
    """The k-th observation of each series of a batch, K the most that any has.

    times: (K, B), of padding the series' last; values: (K, B, D), 0 where not seen; seen: (K, B, D);
    valid: (K, B) false in padding; gaps: (K, B) since the observation before, 0 at the first and in padding.
    """

    times: Tensor
    values: Tensor
    seen: Tensor
    valid: Tensor
    gaps: Tensor


def observations(ts: Tensor, values: Tensor, seen: Tensor) -> Observations:
    """Those of series at ts (T,) or (T, B): values (T, B, D), seen (T, B, D).

    A time at which any channel is seen is an observation. Series without any have padding only.
    """
    ts, some = of_each(ts, seen.shape[1]), seen.any(dim=2)
    most = max(1, int(some.sum(dim=0).max()))
    order = (~some).to(torch.uint8).argsort(dim=0, stable=True)[:most]  # seen times first, in their order
    valid = some.gather(0, order)
    places = order.unsqueeze(-1).expand(-1, -1, seen.shape[2])
    times = torch.where(valid, ts.gather(0, order), ts[0])
    last = torch.where(valid, times, times.max(dim=0).values)
    gaps = torch.cat((torch.zeros_like(last[:1]), last.diff(dim=0)))
    return Observations(last, values.gather(0, places), seen.gather(0, places), valid, gaps)


def last_before(ts: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """How many observations lie before each of the times, and when the last of them was, (T, B) each.

    ts: (T,) or (T, B), seen: (T, B, D). That is ts[0] where there is none.
    """
    some = seen.any(dim=2)
    counts = some.cumsum(dim=0) - some.long()
    places = torch.arange(len(ts), device=ts.device).unsqueeze(1)
    last = torch.where(some, places, 0).cummax(dim=0).values
    return counts, of_each(ts, some.shape[1]).gather(0, torch.cat((torch.zeros_like(last[:1]), last[:-1])))


def onward(ts: Tensor, values: Tensor, seen: Tensor, begin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same series from the time `begin` () on, which is one of those of the batch: ts, values and seen."""
    if ts.dim() == 1:
        place = int((ts < begin).sum())
        return ts[place:], values[place:], seen[place:]
    return ts.clamp(min=begin), values, seen & (ts >= begin).unsqueeze(2)


def backwards(ts: Tensor, values: Tensor, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same series with time running back from the last of ts: (T,) or (T, B) from 0 on, (T, B, D), (T, B, D)."""
    return ts[-1] - ts.flip(0), values.flip(0), seen.flip(0)
