"""Masses on a chain of springs, whose energy is conserved and whose solution is known in closed form."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from node_runner.datasets import DATASETS
from node_runner.datasets.parts.simulate import AnyArray, Simulation
from node_runner.datasets.parts.streams import Array
from node_runner.settings import AtLeast, Count, Positive
from node_runner.views import DataSpec, Equation, View


@DATASETS.register("mass_spring", "unit masses on a chain of springs without friction, tested ten times as long")
@dataclass(kw_only=True)
class MassSpring(Simulation):
    """q'' = -k L q in the state (q_1..q_n, p_1..p_n), p = q'.

    The first mass hangs on a wall, each further one on the mass before it, and the last is free: L is tridiagonal,
    with 2 on its diagonal (1 for the last mass) and -1 beside it. With one mass this is q'' = -k q. The energy
    p^2 / 2 + k q L q / 2 is conserved. Trajectories start in the cube [-radius, radius]^2n.

    Args:
        masses: number of masses, n.
        stiffness: k of every spring, for masses of one unit.
        radius: half the side of the cube of initial states.
    """

    name = "mass_spring"
    remedy = "lower dataset.start"

    masses: Count = 1
    stiffness: Positive = 1.0
    radius: Positive = 1.0
    long_factor: Annotated[float, AtLeast(1)] = 10.0

    @property
    def labels(self) -> tuple[str, ...]:
        """Of position and momentum, with the number of the mass where there are several."""
        return ("q", "p") if self.masses == 1 else tuple(f"{axis}{i + 1}" for axis in "qp" for i in range(self.masses))

    def draw(self, generator: np.random.Generator, count: int) -> Array:
        """States (count, 2n) in the cube."""
        return generator.uniform(-self.radius, self.radius, (count, 2 * self.masses))

    def vector_field(self, t: Any, y: AnyArray) -> AnyArray:
        """dy/dt at y (..., 2n), an array or a tensor; t is not used."""
        return chain(t, y, stiffness=self.stiffness)

    def energy(self, y: AnyArray) -> AnyArray:
        """Zero at rest: (...,) from y (..., 2n), an array or a tensor."""
        n = y.shape[-1] // 2
        # Squares of the springs' extensions: the first hangs on the wall.
        q, p = y[..., :n], y[..., n:]
        stretched = (q[..., :1] ** 2).sum(-1) + ((q[..., 1:] - q[..., :-1]) ** 2).sum(-1)
        return (p**2).sum(-1) / 2 + self.stiffness / 2 * stretched

    def solution(self, ts: Array, y0: Array) -> Array:
        """The solution in closed form, (T, B, 2n) from ts (T,) and y0 (B, 2n).

        Along each eigenvector of k L, with w^2 its eigenvalue: q = q0 cos(wt) + p0 sin(wt)/w, p = q'.
        """
        n = y0.shape[1] // 2
        squares, modes = np.linalg.eigh(self.stiffness * laplacian(n))
        w = np.sqrt(squares)
        q0, p0 = y0[:, :n] @ modes, y0[:, n:] @ modes
        cos, sin = np.cos(ts[:, None, None] * w), np.sin(ts[:, None, None] * w)
        q, p = q0 * cos + p0 / w * sin, p0 * cos - q0 * w * sin
        return np.concatenate((q @ modes.T, p @ modes.T), axis=-1)

    def spec(self, view: View) -> DataSpec:
        """Beside the rest, the energy that is conserved."""
        return replace(super().spec(view), energy=self.energy)

    def equation(self) -> Equation:
        """The equation of motion with the springs' stiffness unknown."""
        return Equation(chain, {"stiffness": 0.5}, {"stiffness": self.stiffness})


def laplacian(n: int) -> Array:
    """L (n, n) of a chain that is held at its first end."""
    matrix = 2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)
    matrix[-1, -1] = 1.0
    return matrix


def chain(t: Any, y: Any, *, stiffness: Any) -> Any:
    """(p, -stiffness L q) at y (..., 2n), an array or a tensor."""
    n = y.shape[-1] // 2
    q, p = y[..., :n], y[..., n:]
    if isinstance(y, Tensor):
        return torch.cat((p, -stiffness * (q @ torch.as_tensor(laplacian(n)).to(y))), dim=-1)
    return np.concatenate((p, -stiffness * (q @ laplacian(n))), axis=-1)
