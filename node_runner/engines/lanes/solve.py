"""Several solves side by side: each sample of a batch in a lane of its own.

A sample has its own clock, step size and error. Every attempt evaluates the field on the whole batch; samples that
are at their end keep their state, by a step of size zero.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from node_runner.engines.failures import spent, stopped
from node_runner.engines.lanes.control import acceptable, attempted, guess, next_step, second_guess
from node_runner.errors import SolveFailed
from node_runner.settings import Batching
from node_runner.types import Dynamics, Method, Norm, SolveStats


class Step(NamedTuple):
    """An attempt: slopes at the stages, each (N, n), and the state after it (N, n)."""

    ks: list[Tensor]
    y1: Tensor


class LaneSolve:
    """One solve of N lanes of n numbers each. With batching=shared the whole batch is one lane.

    Args:
        method: adaptive, with a tableau.
        f: the field, called with t (B,), or t () if there is one lane for the batch.
        y0: (B, D...).
        ts: (T,).
        rtol, atol: tolerance.
        norm: of the error of a batch; a lane's is that of a batch of one.
    """

    def __init__(
        self, method: Method, f: Dynamics, y0: Tensor, ts: Tensor, rtol: float, atol: float, norm: Norm | None
    ) -> None:
        assert method.tableau is not None
        self.method, self.tableau, self.f = method, method.tableau, f
        self.rtol, self.atol, self.given_norm = rtol, atol, norm
        self.joint = method.batching is Batching.shared
        self.shape = y0.shape
        self.y0 = y0.reshape(1 if self.joint else len(y0), -1)
        # As the reference engine hands them over: in the dtype of the state, then on a clock of float64 that rises.
        clock = ts.detach().to(y0.dtype).double()
        self.sign = -1.0 if len(clock) > 1 and clock[0] > clock[1] else 1.0
        self.clock = self.sign * clock
        self.stats = SolveStats()

    def run(self) -> Tensor:
        """States (T, B, D...) at every time, with their gradient if autograd is on; step sizes are constants in it.

        Raises:
            SolveFailed: a lane gave up.
        """
        clock, y = self.clock, self.y0
        lanes = len(y)
        t = clock[0].repeat(lanes)
        k0 = self._slope(t.to(y.dtype), y)
        h = self._first_step(t, y, k0)
        steps = torch.zeros(2, lanes, dtype=torch.long, device=y.device)  # accepted, rejected
        values = [y]
        places = [(torch.zeros_like(steps[0]), torch.arange(lanes, device=y.device))]  # time and lane of each value
        while bool((running := t < clock[-1]).any()):
            h = attempted(self.method, h)
            self._stop_if_stuck(running, t, h, y, steps)
            size = torch.where(running, h, 0.0)
            step = self._attempt(y, k0, t, size)
            ratio = self._error_ratio(y, step, size)
            taken = running & acceptable(self.method, h, ratio)
            steps += torch.stack((taken, running & ~taken))
            if bool((taken != running).any()) and step.y1.requires_grad and not _finite(step):
                # What overflowed in an attempt that does not stand would make its zero gradient a NaN.
                size = torch.where(taken, h, 0.0)
                step = self._attempt(y, k0, t, size)
            end = t + size
            due = taken & (clock[:, None] > t) & (clock[:, None] <= end)
            if bool(due.any()):
                time, lane = due.nonzero(as_tuple=True)
                x = ((clock[time] - t[lane]) / (end - t)[lane]).to(y.dtype)
                values.append(self._dense(y, step, size, lane, x))
                places.append((time, lane))
            y = torch.where(taken[:, None], step.y1, y)
            k0 = torch.where(taken[:, None], step.ks[-1], k0)
            t = torch.where(taken, end, t)
            h = torch.where(running, next_step(self.method, h, ratio), h)
        times, at = (torch.cat(part) for part in zip(*places, strict=True))
        ys = y.new_zeros(len(clock), *y.shape).index_put((times, at), torch.cat(values))
        self._book(steps)
        return ys.view(len(clock), *self.shape)

    def _slope(self, t: Tensor, y: Tensor) -> Tensor:
        """F at the clocks t (N,), turned round where time falls: (N, n)."""
        self.stats.nfe_forward += 1
        t = self.sign * t
        return self.sign * self.f(t[0] if self.joint else t, y.view(self.shape)).reshape(y.shape)

    def _attempt(self, y: Tensor, k0: Tensor, t: Tensor, size: Tensor) -> Step:
        tableau, real = self.tableau, y.dtype
        start, h, end = t.to(real), size.to(real), (t + size).to(real)
        # A stage at the end of a step is evaluated just before it, as torchdiffeq has it.
        before_end = torch.nextafter(end, torch.full_like(end, -torch.inf))
        ks = [k0]
        y1 = y
        for c, weights in zip(tableau.c[1:], tableau.a[1:], strict=True):
            y1 = y + _weighted(weights, ks, h)
            ks.append(self._slope(before_end if c == 1 else start + c * h, y1))
        if not tableau.ends_in_solution:
            y1 = y + _weighted(tableau.b, ks, h)
        return Step(ks, y1)

    @torch.no_grad()
    def _error_ratio(self, y: Tensor, step: Step, size: Tensor) -> Tensor:
        """The error of an attempt relative to the tolerance, (N,)."""
        scale = self.atol + self.rtol * torch.maximum(y.abs(), step.y1.abs())
        return self._norm(_weighted(self.tableau.error, step.ks, size.to(y.dtype)) / scale)

    def _norm(self, error: Tensor) -> Tensor:
        norm = self.given_norm
        if norm is None:
            return error.square().mean(dim=1).sqrt()
        if self.joint:
            return norm(error.view(self.shape)).abs().reshape(1)
        one: Tensor = torch.vmap(lambda e: norm(e.view(1, *self.shape[1:])))(error)
        return one.abs()

    @torch.no_grad()
    def _first_step(self, t: Tensor, y: Tensor, k0: Tensor) -> Tensor:
        first = self.method.options["first_step"]
        if first is not None:
            return torch.full_like(t, first)
        scale = self.atol + y.abs() * self.rtol
        d0, d1 = self._norm(y / scale), self._norm(k0 / scale)
        h0 = guess(d0, d1)
        change = self._slope(t.to(y.dtype) + h0, y + h0[:, None] * k0) - k0
        return second_guess(self.method, h0, d1, self._norm(change / scale) / h0)

    def _dense(self, y: Tensor, step: Step, size: Tensor, lane: Tensor, x: Tensor) -> Tensor:
        """The quartic through y, y at the middle and y1 with the slopes at both ends (torchdiffeq's dense output).

        At shares x (M,) of the steps of lanes (M,): (M, n).
        """
        h = size.to(y.dtype)[lane]
        ks = [k[lane] for k in step.ks]
        y0, y1 = y[lane], step.y1[lane]
        middle = y0 + _weighted(self.tableau.middle, ks, h)
        f0, f1 = h[:, None] * ks[0], h[:, None] * ks[-1]
        a = 2 * (f1 - f0) - 8 * (y1 + y0) + 16 * middle
        b = 5 * f0 - 3 * f1 + 18 * y0 + 14 * y1 - 32 * middle
        c = f1 - 4 * f0 - 11 * y0 - 5 * y1 + 16 * middle
        x = x[:, None]
        return y0 + x * (f0 + x * (c + x * (b + x * a)))

    def _stop_if_stuck(self, running: Tensor, t: Tensor, h: Tensor, y: Tensor, steps: Tensor) -> None:
        over = steps.sum(dim=0) >= self.method.max_steps
        stuck = running & (over | ~(t + h > t) | ~y.isfinite().all(dim=1))
        if not bool(stuck.any()):
            return
        self._book(steps)
        lane = int(stuck.nonzero()[0])
        at, step, end = self.sign * float(t[lane]), float(h[lane]), self.sign * float(self.clock[-1])
        who = f" (sample {lane} of {len(y)})" if len(y) > 1 else ""
        if bool(over[lane]):
            accepted, rejected = steps[:, lane].tolist()
            raise SolveFailed(spent(self.method, at, step, accepted, rejected) + who)
        with torch.no_grad():
            slope = self._slope(t.to(y.dtype), y)[lane]
            finite = bool(y[lane].isfinite().all() and slope.isfinite().all())
        raise SolveFailed(stopped(self.method, at, end, step, finite=finite) + who)

    def _book(self, steps: Tensor) -> None:
        self.stats.book_samples(steps)
        if self.joint:
            self.stats.steps_of_samples = None


def _weighted(weights: tuple[float, ...], ks: list[Tensor], h: Tensor) -> Tensor:
    """H sum_i weights[i] ks[i], for h (N,) and ks (N, n)."""
    terms = [(weight * h)[:, None] * k for weight, k in zip(weights, ks, strict=False) if weight != 0]
    return torch.stack(terms).sum(dim=0) if terms else torch.zeros_like(ks[0])


def _finite(step: Step) -> bool:
    return bool(torch.stack((*step.ks, step.y1)).isfinite().all())
