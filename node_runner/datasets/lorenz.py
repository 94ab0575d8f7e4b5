"""The Lorenz system: chaos in three dimensions."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np

from node_runner.datasets import DATASETS
from node_runner.datasets.simulate import AnyArray, Array, Simulated, Simulation, solve, stack_last
from node_runner.settings import AtLeast, Count, CountOrZero, NonNegative, Positive
from node_runner.views import Equation


@DATASETS.register("lorenz", "the Lorenz system on its chaotic attractor, three axes")
class Lorenz(Simulated):
    """x' = sigma (y - x), y' = x (rho - z) - y, z' = x y - beta z.

    Trajectories start on the attractor, which is reached by a solve of `settle` units of time from random states.
    Nearby ones part e-fold in 1.1 units of time (Lyapunov exponent 0.906), so that no model can predict much longer
    than the default horizon of the long test.

    Args:
        sigma, rho, beta: ratio of viscosity and heat conduction, drive, and shape of the convection rolls.
        settle: time before the trajectories begin.
        train, val, test, long, times, horizon, long_factor, start, long_start, noise, seed: see
            `simulate.Simulation`. With `start` given, `train` is ignored.

    Source: Lorenz, Deterministic nonperiodic flow, Journal of the Atmospheric Sciences 20, 1963.
    """

    def __init__(
        self,
        *,
        sigma: Positive = 10.0,
        rho: Positive = 28.0,
        beta: Positive = 8 / 3,
        settle: NonNegative = 5.0,
        train: Count = 32,
        val: Count = 8,
        test: Count = 8,
        long: CountOrZero = 8,
        times: Annotated[int, AtLeast(2)] = 100,
        horizon: Positive = 2.0,
        long_factor: Annotated[float, AtLeast(1)] = 2.0,
        start: list[list[float]] | None = None,
        long_start: list[list[float]] | None = None,
        noise: NonNegative = 0.0,
        seed: CountOrZero = 0,
    ) -> None:
        self.sigma, self.rho, self.beta = sigma, rho, beta

        def draw(generator: np.random.Generator, count: int) -> Array:
            states = generator.normal((0.0, 0.0, rho - 1), (8.0, 8.0, 8.0), (count, 3))
            return solve(self.vector_field, np.array([0.0, settle]), states)[1] if settle else states

        self._simulation = Simulation(
            name="lorenz",
            flow=lambda ts, y0: solve(self.vector_field, ts, y0),
            draw=draw,
            labels=("x", "y", "z"),
            remedy="move dataset.start",
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
            equation=self.equation(),
        )

    def vector_field(self, t: Any, y: AnyArray) -> AnyArray:
        """dy/dt at y (..., 3), an array or a tensor; t is not used."""
        return convection(t, y, sigma=self.sigma, rho=self.rho, beta=self.beta)

    def equation(self) -> Equation:
        """The system with its three parameters unknown."""
        truth = {"sigma": self.sigma, "rho": self.rho, "beta": self.beta}
        return Equation(convection, {"sigma": 5.0, "rho": 20.0, "beta": 1.0}, truth)


def convection(t: Any, y: Any, *, sigma: Any, rho: Any, beta: Any) -> Any:
    """(sigma (y - x), x (rho - z) - y, x y - beta z) at states (..., 3), an array or a tensor."""
    x, y, z = y[..., 0], y[..., 1], y[..., 2]
    return stack_last(sigma * (y - x), x * (rho - z) - y, x * y - beta * z)
