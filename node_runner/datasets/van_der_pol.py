"""The Van der Pol oscillator, from mild to stiff."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from node_runner.datasets import DATASETS
from node_runner.datasets.parts.simulate import AnyArray, Simulation, stack_last
from node_runner.datasets.parts.streams import Array
from node_runner.settings import Positive
from node_runner.views import Equation


@DATASETS.register("van_der_pol", "the Van der Pol oscillator, dataset.mu makes it stiff")
@dataclass(kw_only=True)
class VanDerPol(Simulation):
    """x'' = mu (1 - x^2) x' - x in the state (x, v), v = x'.

    All trajectories tend to one limit cycle. For large mu it creeps along two slow branches for about 0.8 mu units of
    time each and jumps between them within 1/mu: there the fast rate is up to 3 mu, and the problem is stiff.

    While it jumps, v is as large as mu, so that for large mu the mean of v^2 knows nothing else. In Liénard's plane the
    state is (x, y), y = x - x^3/3 - v/mu, and all of it is of size one whatever mu: x' = mu (x - x^3/3 - y), y' = x/mu.

    Args:
        mu: damping: 0.5 is nearly a circle, 1000 the classical test of stiff solvers.
        lienard: the state is that of Liénard's plane.
        spread: trajectories start in the square of states no further than this from 0, on both axes.
        horizon: time at which training, validation and test trajectories end (null: one and a half periods).

    Source: Van der Pol, On relaxation-oscillations, Philosophical Magazine 2, 1926; Hairer and Wanner, Solving ODEs
    II, 2nd ed., section IV.1.
    """

    name = "van_der_pol"
    remedy = "lower dataset.spread, or move dataset.start"
    stiff = True

    mu: Positive = 2.0
    lienard: bool = False
    spread: Positive = 2.5
    horizon: Positive | None = None  # type: ignore[assignment]  # null is replaced as soon as mu is known

    def __post_init__(self) -> None:
        super().__post_init__()
        self.horizon = self.horizon or 1.5 * period(self.mu)

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the plane."""
        return ("x", "y") if self.lienard else ("x", "v")

    def draw(self, generator: np.random.Generator, count: int) -> Array:
        """States (count, 2) in the square."""
        return generator.uniform(-self.spread, self.spread, (count, 2))

    def vector_field(self, t: Any, y: AnyArray) -> AnyArray:
        """dy/dt at y (..., 2), an array or a tensor; t is not used."""
        return self._form(t, y, mu=self.mu)

    def equation(self) -> Equation:
        """The equation of motion with its damping unknown."""
        return Equation(self._form, {"mu": 1.0}, {"mu": self.mu})

    @property
    def _form(self) -> Callable[..., Any]:
        return lienard_plane if self.lienard else phase_plane


def phase_plane(t: Any, y: Any, *, mu: Any) -> Any:
    """(v, mu (1 - x^2) v - x) at y (..., 2), an array or a tensor."""
    x, v = y[..., 0], y[..., 1]
    return stack_last(v, mu * (1 - x**2) * v - x)


def lienard_plane(t: Any, y: Any, *, mu: Any) -> Any:
    """(mu (x - x^3/3 - y), x/mu) at (x, y) (..., 2), an array or a tensor."""
    x, y = y[..., 0], y[..., 1]
    return stack_last(mu * (x - x**3 / 3 - y), x / mu)


def period(mu: float) -> float:
    """Of the limit cycle, within 16 %: by the first terms for small and for large mu.

    Source: Strogatz, Nonlinear Dynamics and Chaos, section 7.5; Dorodnicyn (1947).
    """
    small = 2 * math.pi * (1 + mu**2 / 16)
    large = (3 - 2 * math.log(2)) * mu + 7.0143 * mu ** (-1 / 3)
    return small if mu < 2 else large
