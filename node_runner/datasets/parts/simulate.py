"""Trajectories of a dynamical system whose vector field is known: what its data sets share."""

from __future__ import annotations

import abc
import functools
import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor

from node_runner.datasets.parts.reference import solve, solve_stiff
from node_runner.datasets.parts.streams import LONG, TEST, TRAIN, VAL, Array, mean_std, not_offered, stream
from node_runner.errors import ConfigError
from node_runner.settings import AtLeast, Count, CountOrZero, NonNegative, Positive, Seed
from node_runner.views import DataSpec, Equation, Points, Splits, Trajectories, View


AnyArray = TypeVar("AnyArray", Array, Tensor)

START, NOISE = range(2)
"""Keys of a part's own streams: initial states, and noise of the observations."""


def stack_last(*components: Any) -> Any:
    """(..., D) from D arrays (...,), or from D tensors."""
    if isinstance(components[0], Tensor):
        return torch.stack(components, dim=-1)
    return np.stack(components, axis=-1)


@dataclass(kw_only=True)
class Simulation(abc.ABC):
    """Exact trajectories of one system, drawn when they are first asked for, and the states along them as points.

    A data set says what its system is: its name, its labels, a remedy, a vector field and a draw of initial states. Its
    settings are its own fields and those below; a field declared again has another default.

    Attributes:
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
    """

    views = (View.trajectories, View.points)
    name: ClassVar[str]
    clock: ClassVar[str] = "time"
    """What time is called in figures."""
    remedy: ClassVar[str]
    """Which settings to change if a solution grows beyond all bounds."""
    autonomous: ClassVar[bool] = True
    """Whether the system's law leaves time out."""
    stiff: ClassVar[bool] = False
    """Whether it takes an implicit solver."""

    train: Count = 16
    val: Count = 8
    test: Count = 8
    long: CountOrZero = 8
    times: Annotated[int, AtLeast(2)] = 100
    horizon: Positive = 10.0
    long_factor: Annotated[float, AtLeast(1)] = 2.0
    start: list[list[float]] | None = None
    long_start: list[list[float]] | None = None
    noise: NonNegative = 0.0
    seed: Seed = 0

    def __post_init__(self) -> None:
        self._check_states("start", self.start)
        self._check_states("long_start", self.long_start)

    @property
    @abc.abstractmethod
    def labels(self) -> tuple[str, ...]:
        """Names of the D axes of the state."""

    @abc.abstractmethod
    def vector_field(self, t: Any, y: AnyArray) -> AnyArray:
        """dy/dt at y (..., D), an array or a tensor."""

    @abc.abstractmethod
    def draw(self, generator: np.random.Generator, count: int) -> Array:
        """Initial states (count, D)."""

    def solution(self, ts: Array, y0: Array) -> Array:
        """States (T, B, D) at ts (T,) from y0 (B, D) at ts[0], exact or as near to it as float64 allows."""
        return (solve_stiff if self.stiff else solve)(self.vector_field, ts, y0)

    def event_times(self, end: float, y0: Array) -> Array | None:
        """Times (B, K) up to `end` at which the solution from y0 (B, D) jumps; None: it has no jumps."""
        return None

    def equation(self) -> Equation | None:
        """The system with its parameters unknown, if that is to be learned."""
        return None

    def check(self) -> None:  # noqa: B027 - few systems have anything to refuse
        """Nothing can be missing: the data are computed."""

    def splits(self, view: View) -> Splits[Any]:
        """Trajectories (N, T, D), or the states observed along them as points (N * T, D)."""
        if view is View.trajectories:
            return self._trajectories
        if view is View.points:
            return self._points
        raise not_offered(self.name, view, self.views)

    def spec(self, view: View) -> DataSpec:
        """Mean and deviation are those of the training observations, noise included."""
        if view not in self.views:
            raise not_offered(self.name, view, self.views)
        mean, std = mean_std(self._points.train.x)
        return DataSpec(
            self.name, view, (len(self.labels),), mean, std,
            labels=self.labels, clock=self.clock, equation=self.equation(), autonomous=self.autonomous,
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
        return self._trajectories.map(lambda part: Points(part.ys.flatten(0, 1)))

    def _initial(self, part: int, count: int, given: list[list[float]] | None = None) -> Array:
        if given is not None:
            return np.array(given, dtype=np.float64)
        return self.draw(stream(self.seed, part, START), count)

    def _simulate(self, part: int, ts: Array, y0: Array, noise: float = 0.0) -> Trajectories:
        with np.errstate(over="ignore", invalid="ignore"):
            ys = self.solution(ts, y0).swapaxes(0, 1)  # (N, T, D)
        finite = np.isfinite(ys).all(axis=(0, 2))
        if not finite.all():
            raise ConfigError(
                f"dataset={self.name}: the solution grows beyond all bounds before t={ts[finite.argmin()]:.4g}, "
                f"and data are asked for until t={ts[-1]:.4g}; {self.remedy}"
            )
        if noise > 0:
            ys = ys + noise * stream(self.seed, part, NOISE).standard_normal(ys.shape)
        jumps = self.event_times(float(ts[-1]), y0)
        return Trajectories(
            torch.from_numpy(ts),
            torch.from_numpy(np.ascontiguousarray(ys)),
            events=None if jumps is None else torch.from_numpy(jumps),
        )

    def _check_states(self, setting: str, states: list[list[float]] | None) -> None:
        if states is None:
            return
        width = len(self.labels)
        if not states or any(len(state) != width or not all(map(math.isfinite, state)) for state in states):
            raise ConfigError(
                f"dataset.{setting}: expected a list of states [{', '.join(self.labels)}], "
                f"such as [[{', '.join(['1.0'] * width)}]], got {states}"
            )
