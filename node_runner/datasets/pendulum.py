"""A pendulum without friction, whose energy is conserved."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from node_runner.datasets import DATASETS
from node_runner.datasets.parts.simulate import AnyArray, Simulation, stack_last
from node_runner.datasets.parts.streams import Array
from node_runner.settings import Above, AtLeast, AtMost, Positive
from node_runner.views import DataSpec, Equation, View


@DATASETS.register("pendulum", "a frictionless pendulum, angle and angular velocity, tested ten times as long")
@dataclass(kw_only=True)
class Pendulum(Simulation):
    """theta'' = -omega_n^2 sin(theta) in the state (theta, omega), omega = theta'.

    Trajectories are released at rest from an angle drawn in [-swing, swing]. The energy per unit of inertia,
    omega^2 / 2 + omega_n^2 (1 - cos theta), is conserved.

    Args:
        omega_n: frequency of small swings, radians a unit of time.
        swing: largest angle of release, radians, below pi (where it would stand on its head).
    """

    name = "pendulum"
    labels = ("theta", "omega")
    remedy = "lower dataset.start"

    omega_n: Positive = 1.0
    swing: Annotated[float, Above(0), AtMost(3.1)] = 2.0
    long_factor: Annotated[float, AtLeast(1)] = 10.0

    def draw(self, generator: np.random.Generator, count: int) -> Array:
        """States (count, 2) at rest."""
        return stack_last(generator.uniform(-self.swing, self.swing, count), np.zeros(count))

    def vector_field(self, t: Any, y: AnyArray) -> AnyArray:
        """dy/dt at y (..., 2), an array or a tensor; t is not used."""
        return pendulum(t, y, omega_n=self.omega_n)

    def energy(self, y: AnyArray) -> AnyArray:
        """Per unit of inertia, zero at rest: (...,) from y (..., 2), an array or a tensor."""
        theta, omega = y[..., 0], y[..., 1]
        # 1 - cos without cancellation near the bottom.
        return omega**2 / 2 + 2 * self.omega_n**2 * _sin(theta / 2) ** 2

    def spec(self, view: View) -> DataSpec:
        """Beside the rest, the energy that is conserved."""
        return replace(super().spec(view), energy=self.energy)

    def equation(self) -> Equation:
        """The equation of motion with its frequency unknown."""
        return Equation(pendulum, {"omega_n": 0.5}, {"omega_n": self.omega_n})


def pendulum(t: Any, y: Any, *, omega_n: Any) -> Any:
    """(omega, -omega_n^2 sin theta) at y (..., 2), an array or a tensor."""
    return stack_last(y[..., 1], -(omega_n**2) * _sin(y[..., 0]))


def _sin(x: Any) -> Any:
    return torch.sin(x) if isinstance(x, Tensor) else np.sin(x)
