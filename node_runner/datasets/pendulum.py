"""A pendulum without friction, whose energy is conserved."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from node_runner.datasets import DATASETS
from node_runner.datasets.simulate import AnyArray, Array, Simulated, Simulation, solve, stack_last
from node_runner.settings import Above, AtLeast, Between, Count, CountOrZero, NonNegative, Positive
from node_runner.views import Equation


@DATASETS.register("pendulum", "a frictionless pendulum, angle and angular velocity, tested ten times as long")
class Pendulum(Simulated):
    """theta'' = -omega_n^2 sin(theta) in the state (theta, omega), omega = theta'.

    Trajectories are released at rest from an angle drawn in [-swing, swing]. The energy per unit of inertia,
    omega^2 / 2 + omega_n^2 (1 - cos theta), is conserved.

    Args:
        omega_n: frequency of small swings, radians a unit of time.
        swing: largest angle of release, radians, below pi (where it would stand on its head).
        train, val, test, long, times, horizon, long_factor, start, long_start, noise, seed: see
            `simulate.Simulation`. With `start` given, `train` is ignored.
    """

    def __init__(
        self,
        *,
        omega_n: Positive = 1.0,
        swing: Annotated[float, Above(0), Between(0, 3.1)] = 2.0,
        train: Count = 16,
        val: Count = 8,
        test: Count = 8,
        long: CountOrZero = 8,
        times: Annotated[int, AtLeast(2)] = 100,
        horizon: Positive = 10.0,
        long_factor: Annotated[float, AtLeast(1)] = 10.0,
        start: list[list[float]] | None = None,
        long_start: list[list[float]] | None = None,
        noise: NonNegative = 0.0,
        seed: CountOrZero = 0,
    ) -> None:
        self.omega_n = omega_n

        def draw(generator: np.random.Generator, count: int) -> Array:
            return stack_last(generator.uniform(-swing, swing, count), np.zeros(count))

        self._simulation = Simulation(
            name="pendulum",
            flow=lambda ts, y0: solve(self.vector_field, ts, y0),
            draw=draw,
            labels=("theta", "omega"),
            remedy="lower dataset.start",
            train=train,
            val=val,
            test=test,
            long=long,
            times=times,
            horizon=horizon,
            long_factor=long_factor,
            start=start,
            long_start=long_start,
            noise=noise,
            seed=seed,
            energy=self.energy,
            equation=self.equation(),
        )

    def vector_field(self, t: Any, y: AnyArray) -> AnyArray:
        """dy/dt at y (..., 2), an array or a tensor; t is not used."""
        return pendulum(t, y, omega_n=self.omega_n)

    def energy(self, y: AnyArray) -> AnyArray:
        """Per unit of inertia, zero at rest: (...,) from y (..., 2), an array or a tensor."""
        theta, omega = y[..., 0], y[..., 1]
        # 1 - cos without cancellation near the bottom.
        return omega**2 / 2 + 2 * self.omega_n**2 * _sin(theta / 2) ** 2

    def equation(self) -> Equation:
        """The equation of motion with its frequency unknown."""
        return Equation(pendulum, {"omega_n": 0.5}, {"omega_n": self.omega_n})


def pendulum(t: Any, y: Any, *, omega_n: Any) -> Any:
    """(omega, -omega_n^2 sin theta) at y (..., 2), an array or a tensor."""
    return stack_last(y[..., 1], -(omega_n**2) * _sin(y[..., 0]))


def _sin(x: Any) -> Any:
    return torch.sin(x) if isinstance(x, Tensor) else np.sin(x)
