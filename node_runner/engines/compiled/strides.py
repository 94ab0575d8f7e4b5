"""The step control of an adaptive solve in which many steps are one run of a loop: a stride."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from node_runner.engines.compiled.attempts import ROWS, limits
from node_runner.engines.compiled.loops import Repeats
from node_runner.engines.compiled.walk import Adaptive, quartic


class Stride(NamedTuple):
    """What one run of a loop wrote down.

    accepted: their number. start (2, ...): y and its slope before them. rows (ROWS, 3, ...): y, slope and middle that
    each gave. scalars (ROWS, 5): with which each was computed. times (accepted, 2): its start and its end.
    """

    accepted: int
    start: Tensor
    rows: Tensor
    scalars: Tensor
    times: np.ndarray[Any, np.dtype[np.float64]]

    @property
    def before(self) -> Tensor:
        """(ROWS, 2, ...): y and slope that each step began with."""
        return torch.cat([self.start[None], self.rows[:-1, :2]])

    @property
    def states(self) -> Tensor:
        """(2 + 3 ROWS, n): every state, the start's two and then three of each row, flat."""
        return torch.cat([self.start.reshape(2, -1), self.rows.view(3 * ROWS, -1)])

    @property
    def kept_bytes(self) -> int:
        """Memory of the states."""
        return (2 + 3 * self.accepted) * self.start[0].numel() * self.start.element_size()


class Readout(NamedTuple):
    """Outputs first..last - 1 as sums of five states each: weights (m, 5) of the states at places (m, 5)."""

    stride: Stride
    first: int
    last: int
    places: Tensor
    weights: Tensor

    def write(self, ys: Tensor) -> None:
        """Write the outputs among ys (T, ...)."""
        states, target = self.stride.states, ys[self.first : self.last]
        # Each output gathers its own states: a sum over all would spread a NaN to where it has weight zero.
        gathered = states[self.places.view(-1)].view(*self.places.shape, -1)
        torch.bmm(self.weights[:, None], gathered, out=target.view(len(target), 1, -1))

    def gradient(self, grad_ys: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient that reaches the start (2, ...) and the rows (ROWS, 3, ...) from the outputs (T, ...)."""
        part, start = grad_ys[self.first : self.last], self.stride.start
        dense = part.new_zeros(len(part), 2 + 3 * ROWS).scatter_add_(1, self.places, self.weights)
        found = dense.T @ part.flatten(1)
        return found[:2].view_as(start), found[2:].view(ROWS, 3, *start.shape[1:])


class Strides(Adaptive):
    """Steps that are chosen by an estimate of their error, many of them in one run of a loop.

    Args:
        as of `Adaptive`, and
        loop: of attempts.
    """

    def __init__(self, *arguments: Any, loop: Repeats) -> None:
        super().__init__(*arguments)
        self.loop = loop

    def start(self, t: float, y: Tensor) -> None:
        """Evaluate the slope at t, and find the first step."""
        super().start(t, y)
        self.state = torch.stack((self.y, self.slope))
        self.finite = bool(torch.isfinite(y).all())
        self.blank = (
            y.new_zeros(ROWS, 3, *y.shape),
            y.new_zeros(ROWS, 5),
            _clock(y, [0.0] * 2).expand(ROWS, 2).clone(),
        )

    def stride(self, end: float) -> Stride:
        """Step until `end` is not ahead, or as many rows are written as a loop has.

        Raises:
            SolveFailed: the step underflows, the budget is spent, or the state is not finite.
        """
        stats, start = self.stats, self.state
        budget = self.method.max_steps - stats.accepted - stats.rejected
        bounds = limits(end, self.direction, self.rtol, self.atol, budget, self.method.options)
        clock = _clock(start, [self.t, self.h, 0, 0, self.finite])
        carried = self.loop.run([start, clock, *self.blank], [_clock(start, bounds)])
        self.t, self.h, accepted, rejected, finite = carried[1].tolist()
        self.state, _, rows, scalars, times = carried
        self.finite = bool(finite)
        count = int(accepted)
        stats.accepted += count
        stats.rejected += int(rejected)
        stats.nfe_forward += self.new_stages * (count + int(rejected))
        self.number += count
        self.y, self.slope = self.state.unbind(0)
        taken = Stride(count, start, rows, scalars, times[:count].cpu().numpy())
        if count < ROWS and end > self.t:
            self.bounds()  # says why it cannot go on
        return taken

    def read(self, stride: Stride, targets: Sequence[float], first: int) -> Readout:
        """The outputs from `first` on that lie within the stride, each as a weighted sum of five of its states."""
        last = bisect_right(targets, self.t, lo=first)
        wanted, (before, after) = np.array(targets[first:last]), stride.times.T
        step = np.searchsorted(after, wanted)
        size = after[step] - before[step]
        x = (wanted - before[step]) / size
        weights = np.stack(quartic(x, self.direction * size), axis=1)
        ends = 3 * step[:, None] + 2
        index = ends + np.array([0, -3, -2, 1, 2])
        index[step == 0, 1:3] = (0, 1)
        index = np.where((x == 1.0)[:, None], ends, index)
        device = stride.start.device
        factors = torch.from_numpy(weights).to(device, stride.start.dtype)
        return Readout(stride, first, last, torch.from_numpy(index).to(device), factors)


def _clock(like: Tensor, numbers: Sequence[float]) -> Tensor:
    """Numbers of the clock, of 64 bits like those of Python."""
    return torch.tensor(numbers, dtype=torch.float64, device=like.device)
