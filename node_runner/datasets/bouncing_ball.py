"""A ball that bounces: free fall, and a jump of the velocity at every impact, all in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from node_runner.datasets import DATASETS
from node_runner.datasets.parts.simulate import AnyArray, Simulation, stack_last
from node_runner.datasets.parts.streams import Array
from node_runner.errors import ConfigError
from node_runner.settings import Above, Between, Count, CountOrZero, NonNegative, Positive
from node_runner.views import View


MOST_BOUNCES = 10_000
"""Impacts that one trajectory may have."""


@DATASETS.register("bouncing_ball", "a ball that bounces: height and velocity, with exact times of impact")
@dataclass(kw_only=True)
class BouncingBall(Simulation):
    """h' = v, v' = -gravity while h > 0; at h = 0 the velocity jumps to v+ = -restitution v-.

    Balls are let go at rest from random heights, or thrown with a random velocity. The data and the times of
    impact are closed forms; the times are kept beside the test trajectories to measure predictions, and no
    training batch holds them. Training states may, by chance, lie near an impact; none is placed there.

    Args:
        gravity: acceleration, units of height a unit of time squared.
        restitution: speed after an impact, as a share of that before it.
        height_min, height_max: range of the initial heights.
        speed: largest initial speed, up or down.

    Raises:
        ConfigError: heights that are not in order or not above the ground.
    """

    name = "bouncing_ball"
    labels = ("height", "velocity")
    remedy = "lower dataset.horizon or dataset.long_factor, or raise dataset.restitution"

    gravity: Positive = 9.81
    restitution: Annotated[float, Between(0.05, 1)] = 0.9
    height_min: Annotated[float, Above(0)] = 0.5
    height_max: Annotated[float, Above(0)] = 1.5
    speed: NonNegative = 1.0
    train: Count = 20
    long: CountOrZero = 4
    horizon: Positive = 2.0

    def __post_init__(self) -> None:
        if self.height_min > self.height_max:
            raise ConfigError(
                f"dataset.height_min={self.height_min:g} is above dataset.height_max={self.height_max:g}: use less"
            )
        for setting, states in (("start", self.start), ("long_start", self.long_start)):
            if any(state and state[0] <= 0 for state in states or []):
                raise ConfigError(
                    f"dataset.{setting}: a ball starts above the ground, got {states}: use heights above 0"
                )
        super().__post_init__()

    def draw(self, generator: np.random.Generator, count: int) -> Array:
        """States (count, 2) within the ranges of height and speed."""
        return generator.uniform((self.height_min, -self.speed), (self.height_max, self.speed), (count, 2))

    def vector_field(self, t: Any, y: AnyArray) -> AnyArray:
        """dy/dt at y (..., 2) between impacts, an array or a tensor; t is not used."""
        velocity = y[..., 1]
        return stack_last(velocity, 0 * velocity - self.gravity)

    def event_times(self, end: float, y0: Array) -> Array:
        """Times of impact (B, K) up to `end` of balls that start at y0 (B, 2); -1 where a ball has fewer than K.

        The first is t_1 = (v_0 + v_1) / gravity with the speed v_1 = sqrt(v_0^2 + 2 gravity h_0); the flight
        after impact k takes 2 restitution^k v_1 / gravity.

        Raises:
            ConfigError: a ball comes to rest (after infinitely many impacts) before `end`.
        """
        speed, times = self._impact(y0)
        if self.restitution < 1:
            rest = times + 2 * self.restitution * speed / (self.gravity * (1 - self.restitution))
            if (rest <= end).any():
                raise ConfigError(
                    f"dataset=bouncing_ball: a ball comes to rest at t={rest.min():.4g}, and data are asked for until "
                    f"t={end:.4g}: use a lower dataset.horizon or dataset.long_factor, or a higher dataset.restitution"
                )
        columns: list[Array] = []
        while (times <= end).any():
            columns.append(np.where(times <= end, times, -1.0))
            if len(columns) > MOST_BOUNCES:
                raise ConfigError(
                    f"dataset=bouncing_ball: more than {MOST_BOUNCES} impacts before t={end:.4g}: "
                    "use a lower dataset.horizon, dataset.long_factor or dataset.gravity"
                )
            speed = self.restitution * speed
            times = times + 2 * speed / self.gravity
        return np.stack(columns, axis=1) if columns else np.empty((len(y0), 0))

    def solution(self, ts: Array, y0: Array) -> Array:
        """The solution in closed form, (T, B, 2) from ts (T,) and y0 (B, 2), starting at ts[0].

        At an impact itself the state is that after it.
        """
        t = ts - ts[0]
        impacts = self.event_times(float(t[-1]), y0)
        first_speed, _ = self._impact(y0)
        ys = np.empty((len(t), len(y0), 2))
        for ball, (height, velocity) in enumerate(y0):
            times = impacts[ball][impacts[ball] >= 0]
            passed = np.searchsorted(times, t, side="right")  # impacts up to each time
            since = t - np.concatenate(([0.0], times))[passed]
            after = first_speed[ball] * self.restitution ** np.arange(1, len(times) + 1)
            v = np.concatenate(([velocity], after))[passed]
            h = np.where(passed == 0, height, 0.0)
            ys[:, ball] = stack_last(h + v * since - self.gravity * since**2 / 2, v - self.gravity * since)
        return ys

    def check(self) -> None:
        """Make the data, so that a ball that comes to rest too early is refused before any work."""
        self.splits(View.trajectories)

    def _impact(self, y0: Array) -> tuple[Array, Array]:
        """Speed (B,) and time (B,) of the first impact."""
        height, velocity = y0.T
        speed = np.sqrt(velocity**2 + 2 * self.gravity * height)
        return speed, (velocity + speed) / self.gravity
