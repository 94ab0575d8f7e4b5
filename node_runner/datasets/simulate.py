"""Trajectories of a dynamical system whose vector field is known: what its data sets share."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from torch import Tensor

from node_runner.datasets.parts import LONG, TEST, TRAIN, VAL, mean_std, not_offered, stream
from node_runner.errors import ConfigError
from node_runner.views import DataSpec, Equation, Graph, Points, Splits, Trajectories, View


Array = NDArray[np.float64]
AnyArray = TypeVar("AnyArray", Array, Tensor)
Flow = Callable[[Array, Array], Array]
"""(ts (T,), y0 (B, D)) -> states (T, B, D) of the exact solution, or as near to it as float64 allows."""

VIEWS = (View.trajectories, View.points)

START, NOISE = range(2)
"""Keys of a part's own streams: initial states, and noise of the observations."""

# DOP853 holds the RMS over the whole batch below the tolerance, so one component can miss it by sqrt(B * D).
# With these two, no component's error per step exceeds 1e-12 of its size, even where a population is
# nearly extinct: ATOL, as a share of the largest initial state, only keeps the tolerance from being zero.
RTOL = 3e-14
ATOL = 1e-8 * RTOL
BATCH = 500

STIFF_RTOL, STIFF_ATOL = 1e-10, 1e-12
"""Of LSODA, each trajectory by itself."""
BEYOND = 1e6
"""Times the largest number of an initial state, or 1: a state that gets there is taken to grow beyond all bounds."""


def stack_last(*components: Any) -> Any:
    """(..., D) from D arrays (...,), or from D tensors."""
    if isinstance(components[0], Tensor):
        return torch.stack(components, dim=-1)
    return np.stack(components, axis=-1)


def solve(field: Callable[[Any, Array], Array], ts: Array, y0: Array) -> Array:
    """Solve dy/dt = field(t, y), y(ts[0]) = y0 with DOP853 and its 7th-order dense output, in float64.

    At this tolerance the steps are so short that the dense output is as accurate as they are, without
    a limit on the step: below 1e-11 on the systems of this package, against closed forms and invariants.

    Args:
        field: (t, y (B, D)) -> (B, D).
        ts: (T,) increasing.
        y0: (B, D).

    Returns:
        (T, B, D), NaN at the times that the solution does not reach because it grew beyond all bounds.

    Source: Hairer, Nørsett, Wanner, Solving ODEs I, 2nd ed., sec. II.10, as in scipy.integrate.solve_ivp.
    """
    ys = np.full((len(ts), *y0.shape), np.nan)
    for first in range(0, len(y0), BATCH):
        batch = y0[first : first + BATCH]
        solution = solve_ivp(
            lambda t, y, shape=batch.shape: field(t, y.reshape(shape)).reshape(-1),
            (ts[0], ts[-1]),
            batch.reshape(-1),
            method="DOP853",
            t_eval=ts,
            rtol=RTOL,
            atol=ATOL * (np.abs(batch).max() or 1.0),
        )
        ys[: len(solution.t), first : first + BATCH] = solution.y.T.reshape(-1, *batch.shape)
    return ys


def solve_stiff(field: Callable[[Any, Array], Array], ts: Array, y0: Array) -> Array:
    """As `solve`, for fields that may be stiff: LSODA, which is implicit where it has to be.

    Each trajectory by itself, with a relative error of 1e-10 a step, and an absolute one of 1e-12 for states of size
    one or less.

    Args:
        field: (t, y (D,)) -> (D,).
        ts: (T,) increasing.
        y0: (B, D).

    Returns:
        (T, B, D), NaN at the times that the solution does not reach because it grew beyond all bounds.

    Source: Petzold, Automatic selection of methods for solving stiff and nonstiff systems, SIAM J. Sci. Stat. Comput.
    4 (1983), as in scipy.integrate.solve_ivp.
    """
    ys = np.full((len(ts), *y0.shape), np.nan)
    for row, start in enumerate(y0):
        ys[0, row] = start
        bound = BEYOND * max(1.0, np.abs(start).max())

        def bounded(t: float, y: Array, bound: float = bound) -> Array:
            if not np.abs(y).max() < bound:
                raise _Beyond(t)  # in front of a pole LSODA would go on for ever
            return field(t, y)

        ahead = ts
        while len(ahead) > 1:
            try:
                span = (ahead[0], ahead[-1])
                solution = solve_ivp(bounded, span, start, "LSODA", ahead, rtol=STIFF_RTOL, atol=STIFF_ATOL)
                ys[: len(solution.t), row] = solution.y.T
                break
            except _Beyond as reached:
                ahead = ahead[:-1][ahead[:-1] < reached.t]
    return ys


class _Beyond(Exception):
    """The state is beyond all bounds at a time t."""

    def __init__(self, t: float) -> None:
        super().__init__(t)
        self.t = t


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """The parts of a data set of trajectories, made when they are first asked for.

    Attributes:
        name: of the data set.
        flow: solves the system.
        draw: (generator, n) -> (n, D) initial states.
        labels: names of the D axes of the state.
        remedy: which settings to change if a solution grows beyond all bounds.
        train, val, test: numbers of trajectories.
        long: number of trajectories of the long-horizon test "test_long" (0: no such test).
        times: points on [0, horizon], evenly spaced.
        horizon: time at which training, validation and test trajectories end.
        long_factor: the long-horizon test reaches long_factor * horizon, with points spaced as above.
        start: initial states of the training trajectories (null: drawn). Their number is then the
            number of training trajectories, and `train` is ignored.
        long_start: initial states of the long-horizon test (null: drawn); `long` then only says
            whether there is one.
        noise: standard deviation of the Gaussian noise on every training and validation observation,
            that at t = 0 included. Test trajectories are exact.
        seed: of initial states and noise; the seed of the training does not touch them.
        energy: conserved along the solutions, if anything is.
        equation: of the system, with its parameters unknown.
        graph: of the nodes that the state belongs to.
        autonomous: whether the system's law leaves time out.
        events: (end, y0 (B, D)) -> (B, K) times up to `end` at which the exact solution jumps (None: it has no jumps).
    """

    name: str
    flow: Flow
    draw: Callable[[np.random.Generator, int], Array]
    labels: tuple[str, ...]
    remedy: str
    train: int
    val: int
    test: int
    long: int
    times: int
    horizon: float
    long_factor: float
    start: list[list[float]] | None
    long_start: list[list[float]] | None
    noise: float
    seed: int
    energy: Callable[[Any], Any] | None = None
    equation: Equation | None = None
    graph: Graph | None = None
    autonomous: bool = True
    events: Callable[[float, Array], Array] | None = None

    def __post_init__(self) -> None:
        self._check_states("start", self.start)
        self._check_states("long_start", self.long_start)

    def splits(self, view: View) -> Splits[Any]:
        """Trajectories of each part, or all states observed along them, (N * T, D)."""
        if view is View.trajectories:
            return self._trajectories
        if view is View.points:
            return self._points
        raise not_offered(self.name, view, VIEWS)

    def spec(self, view: View) -> DataSpec:
        """Mean and deviation are those of the training observations, noise included."""
        if view not in VIEWS:
            raise not_offered(self.name, view, VIEWS)
        mean, std = mean_std(self._points.train.x)
        return DataSpec(
            self.name, view, (len(self.labels),), mean, std,
            labels=self.labels, energy=self.energy, equation=self.equation, graph=self.graph,
            autonomous=self.autonomous,
        )  # fmt: skip

    @functools.cached_property
    def _trajectories(self) -> Splits[Trajectories]:
        # Multiples of one spacing: the times of the long test begin with exactly those of the others,
        # and the last of these is exactly `horizon`.
        intervals = self.times - 1
        ts = self.horizon * (np.arange(self.times) / intervals)
        extra = {}
        if self.long:
            # The subtraction keeps a product such as 1.1 * 10 = 11.000000000000002 from adding a point.
            long_intervals = math.ceil(self.long_factor * intervals - 1e-9)
            long_ts = self.horizon * (np.arange(long_intervals + 1) / intervals)
            extra["test_long"] = self._simulate(LONG, long_ts, self._initial(LONG, self.long, self.long_start))
        return Splits(
            train=self._simulate(TRAIN, ts, self._initial(TRAIN, self.train, self.start), self.noise),
            val=self._simulate(VAL, ts, self._initial(VAL, self.val), self.noise),
            test=self._simulate(TEST, ts, self._initial(TEST, self.test)),
            extra=extra,
        )

    @functools.cached_property
    def _points(self) -> Splits[Points]:
        parts = {name: Points(part.ys.flatten(0, 1)) for name, part in self._trajectories.items()}
        return Splits(parts.pop("train"), parts.pop("val"), parts.pop("test"), parts)

    def _initial(self, part: int, count: int, given: list[list[float]] | None = None) -> Array:
        if given is not None:
            return np.array(given, dtype=np.float64)
        return self.draw(stream(self.seed, part, START), count)

    def _simulate(self, part: int, ts: Array, y0: Array, noise: float = 0.0) -> Trajectories:
        with np.errstate(over="ignore", invalid="ignore"):
            ys = self.flow(ts, y0).swapaxes(0, 1)  # (N, T, D)
        finite = np.isfinite(ys).all(axis=(0, 2))
        if not finite.all():
            raise ConfigError(
                f"dataset={self.name}: the solution grows beyond all bounds before t={ts[finite.argmin()]:.4g}, "
                f"and data are asked for until t={ts[-1]:.4g}; {self.remedy}"
            )
        if noise > 0:
            ys = ys + noise * stream(self.seed, part, NOISE).standard_normal(ys.shape)
        jumps = None if self.events is None else torch.from_numpy(self.events(float(ts[-1]), y0))
        return Trajectories(torch.from_numpy(ts), torch.from_numpy(np.ascontiguousarray(ys)), events=jumps)

    def _check_states(self, setting: str, states: list[list[float]] | None) -> None:
        if states is None:
            return
        width = len(self.labels)
        if not states or any(len(state) != width or not all(map(math.isfinite, state)) for state in states):
            raise ConfigError(
                f"dataset.{setting}: expected a list of states [{', '.join(self.labels)}], "
                f"such as [[{', '.join(['1.0'] * width)}]], got {states}"
            )


class Simulated:
    """A data set that is one simulation."""

    views = VIEWS
    _simulation: Simulation

    def check(self) -> None:
        """Nothing can be missing: the data are computed."""

    def splits(self, view: View) -> Splits[Any]:
        """Trajectories (N, T, D), or the states observed along them as points (N * T, D)."""
        return self._simulation.splits(view)

    def spec(self, view: View) -> DataSpec:
        """Mean and deviation are those of the training observations, noise included."""
        return self._simulation.spec(view)
