"""A memory of irregular observations: it jumps at each, and between them stands still or follows an ODE."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from node_runner.models.block import Flow, ODEBlock
from node_runner.models.dynamics import UnitTime
from node_runner.models.observations import Observations
from node_runner.types import SolveStats


class Memory(NamedTuple):
    """states: (K + 1, B, H) before the first observation and after each; flows: what lies between them."""

    states: Tensor
    flows: list[Flow]


class Recurrence(nn.Module):
    """h jumps at observation k by a GRU, from where the time since the last one has carried it.

    Without a block h stands still in between and the GRU is told how long that was (GRU with time gaps). With one it
    follows dh/dt = f(h): the ODE-RNN of Rubanova, Chen, Duvenaud, Latent ODEs for Irregularly-Sampled Time Series
    (2019), algorithm 1. All series of a batch take their k-th gap in the same solve, each at its own pace: K solves.

    Args:
        channels: D of the observations.
        hidden: H.
        block: solves between observations (None: h stands still).
    """

    def __init__(self, channels: int, hidden: int, block: ODEBlock | None) -> None:
        super().__init__()
        self.cell = nn.GRUCell(2 * channels + (block is None), hidden)
        self.start = nn.Parameter(torch.zeros(hidden))
        self.block = block

    def forward(self, seen: Observations) -> Memory:
        """Read every observation in turn."""
        h = self.start.expand(seen.values.shape[1], -1)
        flows: list[Flow] = []
        states = [h]
        for k in range(len(seen.times)):
            if k:
                h = self.carry(h, seen.gaps[k], flows)
            jumped = self.jump(h, seen.values[k], seen.seen[k], seen.gaps[k])
            h = torch.where(seen.valid[k].unsqueeze(1), jumped, h)
            states.append(h)
        return Memory(torch.stack(states), flows)

    def jump(self, h: Tensor, values: Tensor, seen: Tensor, gap: Tensor) -> Tensor:
        """H (B, H) after values (B, D) that are seen (B, D), `gap` (B,) after the last."""
        told = [values, seen.to(values.dtype)]
        return self.cell(torch.cat(told if self.block is not None else [*told, gap.unsqueeze(1)], dim=1), h)

    def carry(self, h: Tensor, gap: Tensor, flows: list[Flow], pieces: int = 1) -> Tensor:
        """H (B, H) a time `gap` (B,) later; a solve is added to `flows`, by way of `pieces` equal parts of the gap.

        A solver with fixed steps takes one for each piece.
        """
        if self.block is None:
            return h
        parts = torch.linspace(0, 1, pieces + 1, dtype=gap.dtype, device=gap.device)
        flow = self.block(h, parts, around=lambda field: UnitTime(field, gap))
        flows.append(flow)
        return flow.ys[-1]

    def at(self, memory: Memory, seen: Observations, ts: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """What is remembered at every time of the grid, from observations before it, in one solve.

        Args:
            memory: of the observations.
            seen: the observations.
            ts: (T,) the grid.
            before: (T, B) number of observations before each of its times.

        Returns:
            h (T, B, H), and the time (T, B) since the last observation (since ts[0] where there is none).
        """
        known = torch.cat((ts[:1].expand(1, before.shape[1]), seen.times))
        # As fine where nothing was seen for long as it is between two observations.
        pieces = (
            max(1, round(float(seen.gaps.max() / seen.gaps.sum(dim=0).max() * len(seen.gaps)))) if self.block else 1
        )
        gaps = ts.unsqueeze(1) - known.gather(0, before)
        states = memory.states.gather(0, before.unsqueeze(-1).expand(-1, -1, memory.states.shape[2]))
        carried = self.carry(states.flatten(0, 1), gaps.flatten(), memory.flows, pieces)
        return carried.unflatten(0, before.shape), gaps


def costs(flows: list[Flow]) -> tuple[list[SolveStats], dict[str, Tensor]]:
    """What each solve cost, and the integrals of each regulariser along all of them, added up."""
    penalties: dict[str, Tensor] = {}
    for flow in flows:
        for name, integral in flow.penalties.items():
            penalties[name] = penalties[name] + integral if name in penalties else integral
    return [flow.stats for flow in flows], penalties
