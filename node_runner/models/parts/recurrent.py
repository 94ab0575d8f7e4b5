"""Recurrent models of irregular series, which predict what is not seen or tell classes apart."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from node_runner.batches import Lesson, of_each
from node_runner.errors import ConfigError
from node_runner.learning import ModelOutput
from node_runner.models.parts.cut import cut_short
from node_runner.models.parts.own_times import own_times
from node_runner.models.parts.recurrence import Memory, MovingMemory, StillMemory, costs
from node_runner.models.parts.standardised import Standardised
from node_runner.views import DataSpec, View


class Recurrent(Standardised):
    """A memory of observations, and a decoder of it.

    Series: the value at every time of each from the observations before that time, those of the same time left
    out. A memory that moves goes on by itself after the last observation; one that stands still reads its own
    predictions there, as often as it was given observations. Paths: logits from the memory at the end.

    Args:
        spec: of the data; its view decides what is decoded.
        memory: of standardised values.
        hidden: width of the decoder.
        cut: share of the training steps in which the series are cut short, see `cut_short`.

    Raises:
        ConfigError: a cut of paths, of which no value is predicted.
    """

    def __init__(self, spec: DataSpec, memory: StillMemory | MovingMemory, hidden: int, cut: float) -> None:
        super().__init__(spec.mean, spec.std)
        if cut and spec.view is View.paths:
            raise ConfigError(f"model.cut={cut:g}: paths are classified, not continued; use model.cut=0")
        self.memory, self.cut = memory, cut
        self.view = spec.view
        outputs = spec.num_classes if spec.view is View.paths else spec.shape[0]
        self.decoder = nn.Sequential(nn.Linear(memory.width, hidden), nn.Tanh(), nn.Linear(hidden, outputs))

    @own_times
    def forward(self, ts: Tensor, values: Tensor, seen: Tensor, lesson: Lesson | None = None) -> ModelOutput:
        """ts: (T,) or (T, B), values: (T, B, D), seen: (T, B, D) -> predictions (T, B, D) or logits (B, C)."""
        seen = cut_short(ts, seen, lesson, self.cut)
        read = self.memory(ts, torch.where(seen, self.standardise(values), 0), seen)
        if self.view is View.paths:
            return ModelOutput(self.decoder(self.memory.told(read.end, read.left)), *costs(read.flows))
        ys = self.decoder(self.memory.told(read.before, read.since))
        if isinstance(self.memory, StillMemory):
            ys = self._onward(self.memory, read, ys, of_each(ts, seen.shape[1]), seen)
        return ModelOutput(self.restore(ys), *costs(read.flows))

    def _onward(self, memory: StillMemory, read: Memory, ys: Tensor, ts: Tensor, seen: Tensor) -> Tensor:
        """Predictions ys (T, B, D), made anew after each series' last observation.

        As many of its times after it as lay between its observations on average, a series reads its prediction there
        as if it had been observed, and so on. ts: (T, B).
        """
        some = seen.any(dim=2)
        places = torch.arange(len(ts), device=ts.device).unsqueeze(1)
        last = torch.where(some, places, -1).max(dim=0).values
        every = (last.clamp(min=0) / some.sum(dim=0).clamp(min=1)).round().long().clamp(min=1)
        first = int(last.min()) + 1
        h, heard = read.end, ts.gather(0, last.clamp(min=0).unsqueeze(0))[0]
        found = list(ys[:first])
        for place in range(first, len(ts)):
            after = place - last
            since = ts[place] - heard
            y = torch.where((after > 0).unsqueeze(1), self.decoder(memory.told(h, since)), ys[place])
            found.append(y)
            reads = (after > 0) & (after % every == 0)
            h = torch.where(reads.unsqueeze(1), memory.jump(h, y, torch.ones_like(y), since), h)
            heard = torch.where(reads, ts[place], heard)
        return torch.stack(found)
