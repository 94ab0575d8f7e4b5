"""The objective of flow matching: the velocity of straight lines between data and base."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def line_error(field: nn.Module, shape: tuple[int, ...], data: Tensor, base: Tensor, end: Tensor) -> Tensor:
    """Mean squared error () of a field's velocity at one time on each line, |f(t, z) - (e - x) / T|^2 / D.

    Source: see `flow_matching.FlowMatching`.

    Args:
        field: f, of states (B, D...) of `shape`.
        shape: (D...) of one state.
        data: (B, D) x, where the lines are at t = 0.
        base: (B, D) e, where they are at t = T.
        end: () T.
    """
    # One draw, spread evenly over the batch: each time is uniform, and together they cover [0, T].
    even = torch.arange(len(data), device=data.device, dtype=data.dtype) / len(data)
    share = (even + torch.rand((), device=data.device, dtype=data.dtype)).remainder(1.0)
    along = torch.lerp(data, base, share.unsqueeze(1))
    velocity = field(end * share, along.reshape(len(data), *shape)).reshape(len(data), -1)
    return (velocity - (base - data) / end).pow(2).mean()
