"""Paths through observations, differentiable in time: what drives a controlled differential equation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from node_runner.batches import of_each
from node_runner.settings import ControlPath


@dataclass(eq=False)  # and no tuple: engine=compiled puts the tensors of another batch in the place of these
class Control:
    """A path of a batch, piece by piece. ts: (T,) knots of the solve; x: (T, B, C) values there; secant, tangent:
    (T - 1, B, C).

    Between t_i and t_i+1, at u = (t - t_i)/h, its slope is tangent + (secant - tangent)(4u - 3u^2): a cubic that has
    slope `tangent` at u = 0 and `secant` at u = 1. Where both are the same it is straight.
    """

    ts: Tensor
    x: Tensor
    secant: Tensor
    tangent: Tensor

    def _place(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Index (1,) of the piece that holds t (), how far into it, and its length."""
        piece = (torch.searchsorted(self.ts, t.detach().reshape(1), right=True) - 1).clamp(0, len(self.ts) - 2)
        left = self.ts.index_select(0, piece)
        return piece, t - left, self.ts.index_select(0, piece + 1) - left

    def value(self, t: Tensor) -> Tensor:
        """X(t) (B, C) at t ()."""
        piece, since, length = self._place(t)
        u = since / length
        secant, tangent = (slopes.index_select(0, piece)[0] for slopes in (self.secant, self.tangent))
        return self.x.index_select(0, piece)[0] + since * (tangent + (secant - tangent) * (2 * u - u**2))

    def slope(self, t: Tensor) -> Tensor:
        """dX/dt (B, C) at t ()."""
        piece, since, length = self._place(t)
        u = since / length
        secant, tangent = (slopes.index_select(0, piece)[0] for slopes in (self.secant, self.tangent))
        return tangent + (secant - tangent) * (4 * u - 3 * u**2)


def through(ts: Tensor, x: Tensor, kind: ControlPath) -> Control:
    """The path through x (T, B, C) at ts (T,). Where x stays the same from one knot to the next, it stands still.

    hermite: at each knot it leaves with the slope with which it arrived, the backward difference, so that it is once
    differentiable and knows one observation ahead only (Morrill, Kidger, Yang, Lyons, Neural Controlled Differential
    Equations for Online Prediction Tasks, 2021). linear: straight lines.
    """
    secant = x.diff(dim=0) / ts.diff().view(-1, 1, 1)
    tangent = secant if kind is ControlPath.linear else torch.cat((secant[:1], secant[:-1]))
    return Control(ts, x, secant, torch.where((secant != 0).any(dim=2, keepdim=True), tangent, 0))


def knots(ts: Tensor) -> Tensor:
    """(T,) times of the solve at which the paths of series at ts, (T,) or (T, B), have their knots.

    What is driven by a path depends on where that goes and not on how fast (Kidger et al. 2020). So series that have
    times of their own share evenly spaced knots: the k-th of each is at its k-th time, which the path itself tells.
    """
    if ts.dim() == 1:
        return ts
    return torch.lerp(ts[0, 0], ts[-1, 0], torch.linspace(0, 1, len(ts), dtype=ts.dtype, device=ts.device))


def filled(ts: Tensor, values: Tensor, seen: Tensor) -> Tensor:
    """Values (T, B, D) with straight lines through those that are seen, and the nearest one beyond them.

    A channel of which nothing is seen is 0. ts: (T,) or (T, B), values and seen: (T, B, D).
    """
    times = of_each(ts, values.shape[1]).unsqueeze(2).expand_as(values)
    places = torch.arange(len(ts), device=ts.device).view(-1, 1, 1).expand_as(values)
    end = len(ts) - 1
    before = torch.where(seen, places, -1).cummax(dim=0).values
    after = torch.where(seen, places, end + 1).flip(0).cummin(dim=0).values.flip(0)
    none = (before < 0) & (after > end)
    left = torch.where(before < 0, after, before).clamp(max=end)
    right = torch.where(after > end, left, after).clamp(max=end)
    begin = times.gather(0, left)
    span = times.gather(0, right) - begin
    share = torch.where(span > 0, (times - begin) / torch.where(span > 0, span, 1), 0)
    low, high = values.gather(0, left), values.gather(0, right)
    return torch.where(none, 0, low + share * (high - low))


def channels(ts: Tensor, values: Tensor, seen: Tensor, most: int) -> Tensor:
    """[time, values, counts] (T, B, 1 + 2 D): time since ts[0], filled values, times seen so far as shares of `most`.

    The counts tell the equation how often it was observed, which is information too (Kidger et al. 2020).
    ts: (T,) or (T, B), values and seen: (T, B, D).
    """
    time = of_each(ts - ts[0], values.shape[1]).unsqueeze(2)
    counts = seen.to(values.dtype).cumsum(dim=0) / most
    return torch.cat((time, filled(ts, values, seen), counts), dim=2)
