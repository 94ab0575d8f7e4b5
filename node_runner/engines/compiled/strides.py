"""The step control of a solve in which many steps are one run of a loop: a stride."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from node_runner.engines.compiled.attempts import ROWS, limits
from node_runner.engines.compiled.tape import Interpolant
from node_runner.engines.compiled.walk import Adaptive, Grid


class Stride(NamedTuple):
    """What one run of a loop wrote down.

    accepted: number of steps. start (m, ...): the states before them that a step takes, y and for an adaptive one its
    slope. rows (ROWS, n, ...): what each gave, of which the next one took the first m. scalars (ROWS, 5): with which
    each was computed. times (accepted, 2): its start and its end.
    """

    accepted: int
    start: Tensor
    rows: Tensor
    scalars: Tensor
    times: np.ndarray[Any, np.dtype[np.float64]]

    @property
    def before(self) -> Tensor:
        """(ROWS, m, ...): the states that each step began with."""
        return torch.cat([self.start[None], self.rows[:-1, : len(self.start)]])

    @property
    def states(self) -> Tensor:
        """(m + n ROWS, ...): every state, the start's and then those of each row, flat."""
        return torch.cat([self.start.flatten(1), self.rows.flatten(0, 1).flatten(1)])

    @property
    def kept_bytes(self) -> int:
        """Memory of the states."""
        count = len(self.start) + self.rows.shape[1] * self.accepted
        return count * self.start[0].numel() * self.start.element_size()

    def read(self, targets: Sequence[float], first: int, interpolant: Interpolant, direction: int) -> Readout:
        """The outputs from `first` on that lie within the stride, each as a weighted sum of some of its states."""
        before, after = self.times.T
        last = bisect_right(targets, after[-1], lo=first)
        wanted = np.array(targets[first:last])
        step = np.searchsorted(after, wanted)
        size = after[step] - before[step]
        x = (wanted - before[step]) / size
        weights = np.stack(interpolant(x, direction * size), axis=1)
        takes, gives = len(self.start), self.rows.shape[1]
        ends = takes + gives * step[:, None]
        # The state at the step's end, those that it began with, and what else it gave.
        index = ends + np.array([0, *range(-gives, takes - gives), *range(1, gives)])
        index[step == 0, 1 : 1 + takes] = range(takes)
        index = np.where((x == 1.0)[:, None], ends, index)
        device = self.start.device
        factors = torch.from_numpy(weights).to(device, self.start.dtype)
        return Readout(self, first, last, torch.from_numpy(index).to(device), factors)


class Readout(NamedTuple):
    """Outputs first..last - 1 as sums of k states each: weights (last - first, k) of the states at places, likewise."""

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
        """The gradient that reaches the start (m, ...) and the rows (ROWS, n, ...) from the outputs (T, ...)."""
        part, start, rows = grad_ys[self.first : self.last], self.stride.start, self.stride.rows
        takes, count = len(start), len(start) + rows.shape[1] * ROWS
        dense = part.new_zeros(len(part), count).scatter_add_(1, self.places, self.weights)
        found = dense.T @ part.flatten(1)
        return found[:takes].view_as(start), found[takes:].view_as(rows)


class Strides(Adaptive):
    """Steps that are chosen by an estimate of their error, many of them in one run of a loop."""

    def start(self, targets: Sequence[float], y: Tensor) -> None:
        """Evaluate the slope at the first time, and find the first step."""
        super().start(targets, y)
        self.state = torch.stack((self.y, self.slope))
        self.finite = bool(torch.isfinite(y).all())
        self.blank = (
            y.new_zeros(ROWS, 3, *y.shape),
            y.new_zeros(ROWS, 5),
            _clock(y, [0.0] * 2).expand(ROWS, 2).clone(),
        )

    def strides(self, times: Tensor, y: Tensor) -> Iterator[Stride]:
        """Step through all times (T,), which ascend.

        Raises:
            SolveFailed: the step underflows, the budget is spent, or the state is not finite.
        """
        self.start(times.tolist(), y)
        while self.t < self.end:
            yield self._stride()

    def _stride(self) -> Stride:
        """Step until the end is not ahead, or as many rows are written as a loop has."""
        stats, start, loop = self.stats, self.state, self.programs.loop
        assert loop is not None
        budget = self.method.max_steps - stats.accepted - stats.rejected
        bounds = limits(self.end, self.direction, self.rtol, self.atol, budget, self.method.options)
        clock = _clock(start, [self.t, self.h, 0, 0, self.finite])
        carried = loop.run([start, clock, *self.blank], [_clock(start, bounds)])
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
        if count < ROWS and self.end > self.t:
            self.bounds()  # says why it cannot go on
        return taken


class GridStrides(Grid):
    """Steps from one point of a grid to the next, many of them in one run of a loop."""

    def strides(self, times: Tensor, y: Tensor) -> Iterator[Stride]:
        """Step through all times (T,), which ascend and have the dtype of y."""
        loop = self.programs.loop
        assert loop is not None
        points, clocks = self.clocks(times)
        ends = torch.stack([points[:-1], points[1:]], 1).double().numpy()
        state, blank = y[None], y.new_zeros(ROWS, 3 if self.cubic else 1, *y.shape)
        none = torch.zeros(1, dtype=torch.int64, device=y.device)
        for first in range(0, len(clocks), ROWS):
            steps = clocks[first : first + ROWS]
            scalars, start = y.new_zeros(ROWS, 5), state
            scalars[: len(steps)] = steps
            state, rows, _ = loop.run([state, blank, none], [scalars, none + len(steps)])
            yield Stride(len(steps), start, rows, scalars, ends[first : first + ROWS])
        self.count(len(clocks), len(times) - 1)


def _clock(like: Tensor, numbers: Sequence[float]) -> Tensor:
    """Numbers of the clock, of 64 bits like those of Python."""
    return torch.tensor(numbers, dtype=torch.float64, device=like.device)
