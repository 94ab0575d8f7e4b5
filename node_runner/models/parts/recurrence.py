"""A memory of irregular observations: it jumps at each, and between them stands still or follows an ODE."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from node_runner.batches import of_each
from node_runner.models.parts.block import Flow, ODEBlock
from node_runner.models.parts.dynamics import UnitTime
from node_runner.models.parts.observations import last_before, observations
from node_runner.types import SolveStats


class Memory(NamedTuple):
    """What is remembered of a batch.

    before: (T, B, H) at each of the times, from the observations before that time; since: (T, B) time since the
    last of them, since ts[0] where there is none; end, left: (B, H) and (B,) likewise at the last time, an observation
    there included; flows: what lies between observations.
    """

    before: Tensor
    since: Tensor
    end: Tensor
    left: Tensor
    flows: list[Flow]


class StillMemory(nn.Module):
    """h jumps at each observation by a GRU that is told the time since the last one, and stands still in between.

    Its steps are those of the series with most observations, however many times there are.

    Args:
        channels: D of the observations.
        hidden: H.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.cell = nn.GRUCell(2 * channels + 1, hidden)
        self.start = nn.Parameter(torch.zeros(hidden))
        self.width = hidden + 1

    def forward(self, ts: Tensor, values: Tensor, seen: Tensor) -> Memory:
        """Read ts (T,) or (T, B), values (T, B, D), seen (T, B, D)."""
        known = observations(ts, values, seen)
        inputs = torch.cat((known.values, known.seen.to(values.dtype), known.gaps.unsqueeze(2)), dim=2)
        h = self.start.expand(values.shape[1], -1)
        after = [h]
        for observed in inputs:  # padding comes last: what it makes of a series is not looked at
            h = self.cell(observed, h)
            after.append(h)
        states = torch.stack(after)
        count, times = last_before(ts, seen)
        before = states.gather(0, count.unsqueeze(-1).expand(-1, -1, h.shape[1]))
        end = states[known.valid.sum(dim=0), torch.arange(values.shape[1], device=ts.device)]
        since = of_each(ts, values.shape[1]) - times
        left = torch.where(seen[-1].any(dim=1), 0, since[-1])
        return Memory(before, since, end, left, [])

    def jump(self, h: Tensor, values: Tensor, seen: Tensor, gap: Tensor) -> Tensor:
        """H (B, H) after values (B, D) that are seen (B, D), `gap` (B,) after the last."""
        return self.cell(torch.cat((values, seen.to(values.dtype), gap.unsqueeze(1)), dim=1), h)

    def told(self, h: Tensor, since: Tensor) -> Tensor:
        """Input of the decoder (..., H + 1): the memory, and the time since the last observation, unknown to it."""
        return torch.cat((h, since.unsqueeze(-1)), dim=-1)


class MovingMemory(nn.Module):
    """h jumps at each observation by a GRU, and follows dh/dt = f(t, h) in between.

    All series of a batch share the solve from one time to the next, or where each has times of its own, that from its
    k-th to the one after it. A solver with fixed steps takes one in each interval, so that what becomes of a series
    does not depend on its neighbours.

    Source: Rubanova, Chen, Duvenaud, Latent ODEs for Irregularly-Sampled Time Series (2019).

    Args:
        channels: D of the observations.
        hidden: H.
        block: solves between observations.
    """

    def __init__(self, channels: int, hidden: int, block: ODEBlock) -> None:
        super().__init__()
        self.cell = nn.GRUCell(2 * channels, hidden)
        self.start = nn.Parameter(torch.zeros(hidden))
        self.block = block
        self.width = hidden

    def forward(self, ts: Tensor, values: Tensor, seen: Tensor) -> Memory:
        """Read ts (T,) or (T, B), values (T, B, D), seen (T, B, D): a solve up to each time at which any is seen."""
        some = seen.any(dim=2)
        stops = some.any(dim=1).nonzero().flatten().tolist() if ts.dim() == 1 else range(len(ts))
        inputs = torch.cat((values, seen.to(values.dtype)), dim=2)
        h = self.start.expand(values.shape[1], -1)
        before, flows, place = [h.unsqueeze(0)], [], 0
        for stop in dict.fromkeys((*stops, len(ts) - 1)):
            if stop > place:
                flow = self._follow(h, ts[place : stop + 1])
                flows.append(flow)
                before.append(flow.ys[1:])
                h, place = flow.ys[-1], stop
            h = torch.where(some[stop].unsqueeze(1), self.cell(inputs[stop], h), h)
        _, times = last_before(ts, seen)
        since = of_each(ts, len(h)) - times
        return Memory(torch.cat(before), since, h, torch.where(some[-1], 0, since[-1]), flows)

    def _follow(self, h: Tensor, ts: Tensor) -> Flow:
        """From h (B, H) at ts[0] to the other times: (T,), or (2, B), each series from one to the next."""
        if ts.dim() == 1:
            return self.block(h, ts)
        begin, end = ts
        unit = torch.arange(2, dtype=ts.dtype, device=ts.device)
        return self.block(h, unit, pace=lambda field: UnitTime(field, end - begin, begin))

    def told(self, h: Tensor, since: Tensor) -> Tensor:
        """Input of the decoder (..., H): the memory, which has followed the time since the last observation."""
        del since
        return h


def costs(flows: list[Flow]) -> tuple[list[SolveStats], dict[str, Tensor]]:
    """What each solve cost, and the integrals of each regulariser along all of them, added up."""
    penalties: dict[str, Tensor] = {}
    for flow in flows:
        for name, integral in flow.penalties.items():
            penalties[name] = penalties[name] + integral if name in penalties else integral
    return [flow.stats for flow in flows], penalties
