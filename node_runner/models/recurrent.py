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
    out. After the last time at which anything is seen in the batch, an ODE is simply solved on. A memory that stands
    still is decoded together with the time since the last observation, and goes on from its own predictions, which
    it reads as often as it was given observations. Paths: logits from the memory after the last observation.

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
        last = int(some.any(dim=1).nonzero().max()) if bool(some.any()) else 0
        before = (some.cumsum(dim=0) - some.long())[: last + 1]
        near = self._decode(*self.recurrence.at(memory, known, ts[: last + 1], before))
        if last == len(ts) - 1:
            ys = near
        elif self.recurrence.block is None:
            stride = max(1, round(last / len(known.times)))
            ys = torch.cat((near, *self._onward(memory.states[-1], ts[last:], ts[last] - known.times[-1], stride)))
        else:
            h = self.recurrence.carry(memory.states[-1], ts[last] - known.times[-1], memory.flows)
            flow = self.recurrence.block(h, ts[last:] - ts[last])
            memory.flows.append(flow)
            ys = torch.cat((near, self.decoder(flow.ys[1:])))
        return ModelOutput(ys * self.std + self.mean, *costs(memory.flows))

    def _decode(self, h: Tensor, gaps: Tensor) -> Tensor:
        return self.decoder(torch.cat((h, gaps.unsqueeze(-1)), dim=-1) if self.still else h)

    def _onward(self, h: Tensor, ts: Tensor, since: Tensor, stride: int) -> list[Tensor]:
        """Predictions (1, B, D) at ts[1:]; every `stride`-th is read as if it had been observed.

        since: (B,) time from the last observation to ts[0].
        """
        found = []
        for place, step in enumerate(ts.diff(), 1):
            since = since + step
            y = self._decode(h, since)
            found.append(y.unsqueeze(0))
            if place % stride == 0:
                h = self.recurrence.jump(h, y, torch.ones_like(y), since)
                since = torch.zeros_like(since)
        return found
