"""The step control of a solve: adaptive or on a grid, with torchdiffeq's clock and rules.

Clocks here ascend: a solve backward in time runs on -t, as in torchdiffeq. Source: torchdiffeq's `rk_common.py`,
`misc.py` and `solvers.py`; Hairer, Norsett and Wanner, Solving ODEs I, 2nd ed., section II.4.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from node_runner.engines.compiled.loops import Repeats
from node_runner.engines.compiled.programs import Program
from node_runner.engines.compiled.tape import Interpolant, Name, Numbers, Outputs, Tape
from node_runner.engines.failures import spent, stopped
from node_runner.errors import SolveFailed
from node_runner.types import Method, SolveStats


class Programs(NamedTuple):
    """The programs that a solve runs.

    begin: of adaptive steps, the slope at the start, and the size of the first unless it is given. step: one step.
    loop: many of them, or attempts at them, or None where each is a call of `step`. undo: the gradient of a loop.
    at_once: the same of all its steps together, None where it does not pay; it does from `many` steps in a solve on.
    """

    begin: Program | None
    step: Program
    loop: Repeats | None = None
    undo: Repeats | None = None
    at_once: Repeats | None = None
    many: int = 0


class Scalars:
    """Makes the small tensors of scalars that steps take.

    Args:
        like: the state, whose dtype and device they get.
    """

    def __init__(self, like: Tensor) -> None:
        self.dtype, self.device = like.dtype, like.device
        self._real = np.float32 if like.dtype is torch.float32 else np.float64

    def __call__(self, *numbers: float) -> Tensor:
        return torch.tensor(numbers, dtype=self.dtype, device=self.device)

    def before(self, t: float) -> float:
        """The number before t in the state's dtype: a field that jumps at t is not to jump yet."""
        real = self._real(t)
        return float(np.nextafter(real, real - self._real(1)))


class Adaptive:
    """Steps that are chosen by an estimate of their error.

    Args:
        method: with its options.
        programs: of the system.
        tape: that writes down what a gradient needs.
        rtol, atol: tolerance.
        direction: 1, or -1 backward in time.
        stats: that counts.
    """

    def __init__(
        self, method: Method, programs: Programs, tape: Tape, rtol: float, atol: float, direction: int,
        stats: SolveStats,
    ) -> None:  # fmt: skip
        self.method, self.programs, self.tape, self.stats = method, programs, tape, stats
        self.rtol, self.atol, self.direction = rtol, atol, direction
        tableau, options = method.tableau, method.options
        assert tableau is not None and method.order is not None
        self.new_stages = tableau.stages - 1
        self.exponent = 1 / method.order
        self.first_step, self.min_step, self.max_step, self.safety, self.ifactor, self.dfactor = (
            options[name] for name in ("first_step", "min_step", "max_step", "safety", "ifactor", "dfactor")
        )

    def march(self, times: Tensor, y: Tensor, outputs: Outputs) -> None:
        """Step through all times (T,), which ascend, adding the states at times[1:].

        Raises:
            SolveFailed: the step underflows, the budget is spent, or the state is not finite.
        """
        targets = times.tolist()
        self.start(targets, y)
        j = 1
        while j < len(targets):
            while targets[j] > self.t:
                self._attempt()
            last = bisect_right(targets, self.t, lo=j)
            self._hand_on(targets[j:last], outputs)
            j = last

    def start(self, targets: Sequence[float], y: Tensor) -> None:
        """Evaluate the slope at the first time, and find the first step."""
        t, self.end = targets[0], targets[-1]
        self.scalars = Scalars(y)
        direction = self.direction
        if self.first_step is None:
            scalars = self.scalars(direction * t, direction, self.rtol, self.atol)
        else:
            scalars = self.scalars(direction * t)
        begin = self.programs.begin
        assert begin is not None
        result = self.tape.run(begin, [scalars, y])
        self.tape.take(begin, (("y", 0),), (("slope", 0),))
        self.stats.nfe_forward += 2 if self.first_step is None else 1
        self.h = float(result.report[0]) if self.first_step is None else self.first_step
        self.t = self.before = t
        self.y, (self.slope,) = y, result.outputs
        self.y_before, self.slope_before, self.middle = y, self.slope, y
        self.finite = True
        self.number = 0

    def bounds(self) -> tuple[float, float]:
        """The size of the next attempt, and its end.

        Raises:
            SolveFailed: it cannot be made.
        """
        stats, t, h = self.stats, self.t, self.h
        if not math.isfinite(h):
            h = self.min_step
        h = min(max(h, self.min_step), self.max_step)
        if stats.accepted + stats.rejected >= self.method.max_steps:
            raise SolveFailed(spent(self.method, self.direction * t, h, stats.accepted, stats.rejected))
        after = t + h
        if not after > t or not self.finite:
            finite = self.finite and bool(torch.isfinite(self.y).all() and torch.isfinite(self.slope).all())
            raise SolveFailed(stopped(self.method, self.direction * t, self.direction * self.end, h, finite=finite))
        return h, after

    def _attempt(self) -> None:
        stats, t = self.stats, self.t
        if self.number == 0 and stats.rejected == 0:
            self.finite = bool(torch.isfinite(self.y).all())
        h, after = self.bounds()
        signed = self.direction * h
        end = self.direction * self.scalars.before(after)
        scalars = self.scalars(self.direction * t, signed, end, self.rtol, self.atol)
        result = self.tape.run(self.programs.step, [scalars, self.y, self.slope])
        ratio, zero = result.report[0].tolist()
        stats.nfe_forward += self.new_stages
        if ratio <= 1 or h <= self.min_step:
            n = self.number
            gives: tuple[Name, ...] = (("y", n + 1), ("slope", n + 1), ("middle", n))
            self.tape.take(self.programs.step, (("y", n), ("slope", n)), gives)
            self.y_before, self.slope_before, self.before = self.y, self.slope, t
            self.y, self.slope, self.middle = result.outputs
            self.t, self.finite, self.number = after, zero == 0, n + 1
            stats.accepted += 1
        else:
            stats.rejected += 1
        self.h = self._next(h, ratio)

    def _next(self, h: float, ratio: float) -> float:
        """The size of the next attempt; NaN stays NaN."""
        if ratio == 0:
            factor = self.ifactor
        elif math.isnan(ratio):
            return math.nan
        else:
            factor = min(self.ifactor, max(self.safety / ratio**self.exponent, 1.0 if ratio < 1 else self.dfactor))
        return min(max(h * factor, self.min_step), self.max_step)

    def _hand_on(self, targets: Sequence[float], outputs: Outputs) -> None:
        """Add the states at times within the last step, by its interpolant, to the outputs."""
        n, size = self.number, self.t - self.before
        outputs.add(
            (("y", n), ("y", n - 1), ("slope", n - 1), ("slope", n), ("middle", n - 1)),
            (self.y, self.y_before, self.slope_before, self.slope, self.middle),
            [(target - self.before) / size for target in targets],
            self.direction * size,
        )


def quartic(x: Numbers, h: Numbers) -> tuple[Numbers, ...]:
    """Weights of the end, the start, the slopes there and at the end, and the middle.

    The polynomial is that of torchdiffeq's `_interp_fit`, its coefficients gathered by state.
    """
    x2, x3, x4 = x * x, x**3, x**4
    return (
        -5 * x2 + 14 * x3 - 8 * x4,
        1 - 11 * x2 + 18 * x3 - 8 * x4,
        h * (x - 4 * x2 + 5 * x3 - 2 * x4),
        h * (x2 - 3 * x3 + 2 * x4),
        16 * x2 - 32 * x3 + 16 * x4,
    )


def line(x: Numbers, h: Numbers) -> tuple[Numbers, ...]:
    """Weights of the end and the start."""
    return x, 1 - x


def cubic(x: Numbers, h: Numbers) -> tuple[Numbers, ...]:
    """Hermite's: weights of the end, the start, and the slopes there and at the end."""
    return x * x * (3 - 2 * x), (1 + 2 * x) * (1 - x) ** 2, x * (1 - x) ** 2 * h, x * x * (x - 1) * h


def interpolant(method: Method) -> Interpolant:
    """The polynomial that gives the states between the ends of a step."""
    if method.adaptive:
        return quartic
    return cubic if method.options["interp"] == "cubic" else line


class Grid:
    """Steps from one point of a grid to the next.

    Args:
        method: with its options.
        programs: of the system.
        tape: that writes down what a gradient needs.
        direction: 1, or -1 backward in time.
        stats: that counts.
    """

    def __init__(self, method: Method, programs: Programs, tape: Tape, direction: int, stats: SolveStats) -> None:
        self.method, self.programs, self.tape, self.direction, self.stats = method, programs, tape, direction, stats
        assert method.tableau is not None
        self.stages = method.tableau.stages
        self.cubic = method.options["interp"] == "cubic"

    def clocks(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """The points (N + 1,) of the steps to all times (T,), and the scalars (N, 5) with which each is computed."""
        points = _grid(times, self.method.options["step_size"])
        t, after = points[:-1], points[1:]
        start, end = t, after
        if self.method.options["perturb"]:
            start, end = torch.nextafter(t, t + 1), torch.nextafter(after, after - 1)
        return points, self.direction * torch.stack([start, t, after - t, end, after], 1)

    def count(self, steps: int, outputs: int) -> None:
        """Book a solve of so many steps and outputs.

        torchdiffeq's cubic evaluates the slope at the step's end once for each output, and so is it counted; here
        every step of a cubic does.
        """
        self.stats.accepted += steps
        self.stats.nfe_forward += self.stages * steps + self.cubic * outputs

    def march(self, times: Tensor, y: Tensor, outputs: Outputs) -> None:
        """Step through all times (T,), which ascend and have the dtype of y, adding the states at times[1:]."""
        grid, clocks = self.clocks(times)
        scalars, targets, points = Scalars(y), times.tolist(), grid.tolist()
        j = 1
        for n, clock in enumerate(clocks.tolist()):
            t, after = points[n], points[n + 1]
            result = self.tape.run(self.programs.step, [scalars(*clock), y])
            gives: tuple[Name, ...] = (("y", n + 1), ("slope", n), ("end", n))
            self.tape.take(self.programs.step, (("y", n),), gives[: len(result.outputs)])
            y_before, (y, *slopes) = y, result.outputs
            last = bisect_right(targets, after, lo=j)
            if last > j:
                names: tuple[Name, ...] = (("y", n + 1), ("y", n), ("slope", n), ("end", n))
                values = (y, y_before, *slopes)
                xs = [(target - t) / (after - t) for target in targets[j:last]]
                outputs.add(names[: len(values)], values, xs, self.direction * (after - t))
            j = last
        self.count(len(clocks), len(targets) - 1)


def _grid(times: Tensor, step_size: float | None) -> Tensor:
    """The points of the steps, as torchdiffeq's `_grid_constructor_from_step_size` makes them."""
    if step_size is None:
        return times
    count = math.ceil(float((times[-1] - times[0]) / step_size + 1))
    grid = torch.arange(0, count, dtype=times.dtype) * step_size + times[0]
    grid[-1] = times[-1]
    return grid


def direction_of(method: Method, times: Sequence[float]) -> int:
    """1 if times ascend, -1 if they descend.

    Raises:
        SolveFailed: they do neither.
    """
    pairs = list(pairwise(times))
    if all(a < b for a, b in pairs):
        return 1
    if all(a > b for a, b in pairs):
        return -1
    raise SolveFailed(f"{method.name} refused the problem: t must be strictly increasing or decreasing")
