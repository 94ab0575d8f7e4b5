"""The Lorenz system: chaos in three dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from node_runner.datasets import DATASETS
from node_runner.datasets.parts.reference import solve
from node_runner.datasets.parts.simulate import AnyArray, Simulation, stack_last
from node_runner.datasets.parts.streams import Array
from node_runner.settings import Count, NonNegative, Positive
from node_runner.views import Equation


@DATASETS.register("lorenz", "the Lorenz system on its chaotic attractor, three axes")
@dataclass(kw_only=True)
class Lorenz(Simulation):
    """x' = sigma (y - x), y' = x (rho - z) - y, z' = x y - beta z.

    Trajectories start on the attractor, which is reached by a solve of `settle` units of time from random states.
    Nearby ones part e-fold in 1.1 units of time (Lyapunov exponent 0.906), so that no model can predict much longer
    than the default horizon of the long test.

    Args:
        sigma, rho, beta: ratio of viscosity and heat conduction, drive, and shape of the convection rolls.
        settle: time before the trajectories begin.

    Source: Lorenz, Deterministic nonperiodic flow, Journal of the Atmospheric Sciences 20, 1963.
    """

    name = "lorenz"
    labels = ("x", "y", "z")
    remedy = "move dataset.start"

    sigma: Positive = 10.0
    rho: Positive = 28.0
    beta: Positive = 8 / 3
    settle: NonNegative = 5.0
    train: Count = 32
    horizon: Positive = 2.0

    def draw(self, generator: np.random.Generator, count: int) -> Array:
        """States (count, 3) on the attractor."""
        states = generator.normal((0.0, 0.0, self.rho - 1), (8.0, 8.0, 8.0), (count, 3))
        return solve(self.vector_field, np.array([0.0, self.settle]), states)[1] if self.settle else states

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
