"""Robertson's chemical reaction, whose rates differ by nine orders of magnitude, in logarithmic time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from node_runner.datasets import DATASETS
from node_runner.datasets.parts.simulate import AnyArray, Simulation, stack_last
from node_runner.datasets.parts.streams import Array
from node_runner.settings import AtLeast, Between, Positive
from node_runner.views import Equation


SCALE = 1e4
"""Of the second species, whose concentration is never above 4e-5."""


@DATASETS.register("robertson", "Robertson's reaction, the classical stiff problem: three species, logarithmic time")
@dataclass(kw_only=True)
class Robertson(Simulation):
    """A -> B (k1), B + B -> C + B (k2), B + C -> A + C (k3), in the state (A, 1e4 B, C) of concentrations.

    dA/dt = -k1 A + k3 B C, dB/dt = k1 A - k3 B C - k2 B^2, dC/dt = k2 B^2. The sum of the three stays 1.

    The time of the data is the decade s = log10(1 + t / t0): the reaction goes on for as long in each of ten decades,
    and evenly spaced s are the customary logarithmically spaced t. The field is dt/ds times that above, which depends
    on s; B is multiplied by 1e4, so that all that a model sees is of size one. It is as stiff as before: at the end
    the fastest rate is some 1e9 a decade.

    Args:
        k1, k2, k3: rates of the reactions.
        t0: time that is the unit of the first decade.
        least: trajectories start with a share of A between this and 1, no B, and C for the rest.
        horizon: decades, at the end of training, validation and test trajectories: t = t0 (10^horizon - 1).

    Source: Robertson, The solution of a set of reaction rate equations, in: Walsh (ed.), Numerical Analysis, 1966;
    Hairer and Wanner, Solving ODEs II, 2nd ed., section IV.1. Scaled as by Kim, Ji, Deng, Ma, Rackauckas, Stiff neural
    ordinary differential equations, Chaos 31, 2021.
    """

    name = "robertson"
    labels = ("A", "10000 B", "C")
    clock = "decade, log10(1 + t / t0)"
    remedy = "lower dataset.horizon, or start from concentrations of at least 0"
    stiff = True
    autonomous = False

    k1: Positive = 0.04
    k2: Positive = 3e7
    k3: Positive = 1e4
    t0: Positive = 1e-5
    least: Annotated[float, Between(0, 1)] = 0.5
    long_factor: Annotated[float, AtLeast(1)] = 1.1

    def draw(self, generator: np.random.Generator, count: int) -> Array:
        """Concentrations (count, 3), of A and C."""
        share = generator.uniform(self.least, 1.0, count)
        return stack_last(share, np.zeros(count), 1 - share)

    def vector_field(self, t: Any, y: AnyArray) -> AnyArray:
        """dy/ds at the decade t and y (..., 3), arrays or tensors."""
        return reaction(t, y, k1=self.k1, k2=self.k2, k3=self.k3, t0=self.t0)

    def equation(self) -> Equation:
        """The reaction with its three rates unknown."""
        t0 = self.t0
        return Equation(
            lambda t, y, **rates: reaction(t, y, t0=t0, **rates),
            {"k1": 0.02, "k2": 1e7, "k3": 5e3},
            {"k1": self.k1, "k2": self.k2, "k3": self.k3},
        )


def reaction(s: Any, y: Any, *, k1: Any, k2: Any, k3: Any, t0: float) -> Any:
    """Change of (A, 1e4 B, C) a decade, at the decade s () or (...,) and y (..., 3), arrays or tensors."""
    a, b, c = y[..., 0], y[..., 1] / SCALE, y[..., 2]
    pace = np.log(10) * t0 * 10**s  # dt/ds
    first, second, third = pace * k1 * a, pace * k2 * b**2, pace * k3 * b * c
    return stack_last(third - first, SCALE * (first - second - third), second)
