"""Masses on a chain of springs, whose energy is conserved and whose solution is known in closed form."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from node_runner.datasets import DATASETS
from node_runner.datasets.simulate import AnyArray, Array, Simulated, Simulation
from node_runner.settings import AtLeast, Count, CountOrZero, NonNegative, Positive
from node_runner.views import Equation


@DATASETS.register("mass_spring", "unit masses on a chain of springs without friction, tested ten times as long")
class MassSpring(Simulated):
    """q'' = -k L q in the state (q_1..q_n, p_1..p_n), p = q'.

    The first mass hangs on a wall, each further one on the mass before it, and the last is free: L is tridiagonal,
    with 2 on its diagonal (1 for the last mass) and -1 beside it. With one mass this is q'' = -k q. The energy
    p^2 / 2 + k q L q / 2 is conserved. Trajectories start in the cube [-radius, radius]^2n.

    Args:
        masses: number of masses, n.
        stiffness: k of every spring, for masses of one unit.
        radius: half the side of the cube of initial states.
        train, val, test, long, times, horizon, long_factor, start, long_start, noise, seed: see
            `simulate.Simulation`. With `start` given, `train` is ignored.
    """

    def __init__(
        self,
        *,
        masses: Count = 1,
        stiffness: Positive = 1.0,
        radius: Positive = 1.0,
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
        self.stiffness = stiffness
        axes = ("q", "p") if masses == 1 else tuple(f"{axis}{i + 1}" for axis in "qp" for i in range(masses))
        self._simulation = Simulation(
            name="mass_spring",
            flow=self.exact,
            draw=lambda generator, count: generator.uniform(-radius, radius, (count, 2 * masses)),
            labels=axes,
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
        """dy/dt at y (..., 2n), an array or a tensor; t is not used."""
        return chain(t, y, stiffness=self.stiffness)

    def energy(self, y: AnyArray) -> AnyArray:
        """Zero at rest: (...,) from y (..., 2n), an array or a tensor."""
        n = y.shape[-1] // 2
        # Squares of the springs' extensions: the first hangs on the wall.
        q, p = y[..., :n], y[..., n:]
        stretched = (q[..., :1] ** 2).sum(-1) + ((q[..., 1:] - q[..., :-1]) ** 2).sum(-1)
        return (p**2).sum(-1) / 2 + self.stiffness / 2 * stretched

    def exact(self, ts: Array, y0: Array) -> Array:
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
