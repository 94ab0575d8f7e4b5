"""Recurrent models of irregular series, which predict what is not seen or tell classes apart."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from node_runner.learning import ModelOutput
from node_runner.models.observations import observations
from node_runner.models.recurrence import Recurrence, costs
from node_runner.views import DataSpec, Lesson, View


class Recurrent(nn.Module):
    """A recurrence over observations, and a decoder of its memory.

    Series: the value at every time of the grid from the observations before that time, those of the same time left
    out. A memory that stands still between observations is decoded together with the time since the last one, and
    after the last time at which anything is seen in the batch it goes on from its own predictions, one time of the
    grid after the other. Paths: logits from the memory after the last observation.

    Args:
        spec: of the data; its view decides what is decoded.
        recurrence: over standardised values.
        hidden: H of the recurrence, and the width of the decoder.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: DataSpec, recurrence: Recurrence, hidden: int) -> None:
        super().__init__()
        self.recurrence = recurrence
        self.still = recurrence.block is None
        self.view = spec.view
        inputs = hidden + (self.still and spec.view is View.series)
        outputs = spec.num_classes if spec.view is View.paths else spec.shape[0]
        self.decoder = nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, outputs))
        self.register_buffer("mean", spec.mean.clone())
        self.register_buffer("std", spec.std.clone())

    def forward(self, ts: Tensor, values: Tensor, seen: Tensor, lesson: Lesson | None = None) -> ModelOutput:
        """ts: (T,), values: (T, B, D), seen: (T, B, D) -> predictions (T, B, D) or logits (B, C)."""
        del lesson
        known = observations(ts, torch.where(seen, (values - self.mean) / self.std, 0), seen)
        memory = self.recurrence(known)
        if self.view is View.paths:
            return ModelOutput(self.decoder(memory.states[-1]), *costs(memory.flows))
        some = seen.any(dim=2)
        before = some.cumsum(dim=0) - some.long()
        if self.still:
            last = int(some.any(dim=1).nonzero().max()) if bool(some.any()) else 0
            h, gaps = self.recurrence.at(memory, known, ts[: last + 1], before[: last + 1])
            near = self._decode(h, gaps)
            ys = torch.cat((near, *self._onward(memory.states[-1], ts[last:], ts[last] - known.times[-1])))
        else:
            h, gaps = self.recurrence.at(memory, known, ts, before)
            ys = self.decoder(h)
        return ModelOutput(ys * self.std + self.mean, *costs(memory.flows))

    def _decode(self, h: Tensor, gaps: Tensor) -> Tensor:
        return self.decoder(torch.cat((h, gaps.unsqueeze(-1)), dim=-1))

    def _onward(self, h: Tensor, ts: Tensor, since: Tensor) -> list[Tensor]:
        """Predictions (1, B, D) at ts[1:], each read as if it had been observed; `since` (B,) is known at ts[0]."""
        found = []
        for step in ts.diff():
            gap = since + step
            y = self._decode(h, gap)
            h = self.recurrence.jump(h, y, torch.ones_like(y), gap)
            since = torch.zeros_like(gap)
            found.append(y.unsqueeze(0))
        return found
