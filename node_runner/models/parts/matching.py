"""A neural ODE with events, matched to pairs of observations without a solve."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from node_runner.models.parts.jumps import EventFunction, Jump
from node_runner.types import Dynamics


SHARPNESS = 300.0
"""Steepness of the classification, in standard deviations of the data: its error is some thousandths of one."""


SECANTS = 2
"""Secants, each from a, that follow the straight line to the time of an event."""


class Mismatch(NamedTuple):
    """How far field, event function and jump are from the observations, () each."""

    field: Tensor
    event: Tensor
    jump: Tensor


class Matching:
    """Compares a model's parts with pairs of neighbouring observations a, b that are `step` apart.

    Where the trapezoidal rule misses b by more than `least`, on any axis, there has been a jump. Elsewhere the field is
    to have the slope of the pair, (b - a) / step = (f(a) + f(b)) / 2. About a jump the event function is to be above
    zero at a and at b, which were reached, and below it where the field alone leads from a, which was not: a
    classification that knows the surface as well as it is lined with observations. The two states at the surface,
    which the field gives from a and back from b, are the jump's to be joined.

    Args:
        field: f.
        event, jump: of the model.
        least: jump, in standard deviations of the data.
    """

    def __init__(self, field: nn.Module, event: EventFunction, jump: Jump, least: float) -> None:
        self.field, self.event, self.jump, self.least = field, event, jump, least

    def __call__(self, t: Tensor, z: Tensor, seen: Tensor | None) -> Mismatch:
        """t: (T, B), z: (T, B, D) standardised states, seen: (T, B) or None for all -> mismatches ()."""
        start, step = t[:-1].flatten(), t.diff(dim=0).flatten()
        a, b, everywhere = z[:-1].flatten(0, 1), z[1:].flatten(0, 1), z.flatten(0, 1)
        if seen is not None:
            everywhere = z[seen]
            both = (seen[:-1] & seen[1:]).flatten()
            start, step, a, b = start[both], step[both], a[both], b[both]
        error = (b - a) / step[:, None] - (self.field(start, a) + self.field(start + step, b)) / 2
        jumped = (error.detach().abs().amax(dim=1) * step) > self.least
        smooth = mean(error[~jumped].square())
        a, b, start, step = a[jumped], b[jumped], start[jumped], step[jumped]
        with torch.no_grad():
            beyond = heun(self.field, start, a, step)
        reached, missed = self.event(torch.cat((a, b))), self.event(beyond)
        surface = below(torch.cat((-reached, missed))) + below(-self.event(everywhere))
        before, after = self._at_surface(start, step, a, b, reached[: len(a)].detach(), missed.detach())
        return Mismatch(smooth, surface, mean((self.jump(before) - after).square()))

    @torch.no_grad()
    def _at_surface(
        self, t: Tensor, step: Tensor, a: Tensor, b: Tensor, g: Tensor, beyond: Tensor
    ) -> tuple[Tensor, Tensor]:
        """States (n, D) just before and just after the jump, of the pairs between which g falls through zero."""
        falls = (g > 0) & (beyond < 0)
        t, step, a, b, g, share = (x[falls] for x in (t, step, a, b, g, g / (g - beyond)))
        for _ in range(SECANTS):
            share = share * g / (g - self.event(heun(self.field, t, a, share * step)))
        return heun(self.field, t, a, share * step), heun(self.field, t + step, b, (share - 1) * step)


def below(x: Tensor) -> Tensor:
    """Mean () of a smooth max(x, 0): what it would take to bring x below zero."""
    return mean(nn.functional.softplus(x, beta=SHARPNESS))


def heun(f: Dynamics, t: Tensor, z: Tensor, step: Tensor) -> Tensor:
    """One step of Heun's method, of second order: t and step (n,), z (n, D) -> (n, D)."""
    first = f(t, z)
    h = step[:, None]
    return z + h * (first + f(t + step, z + h * first)) / 2


def mean(x: Tensor) -> Tensor:
    """Mean (), zero where there are no numbers."""
    return x.sum() / max(x.numel(), 1)
