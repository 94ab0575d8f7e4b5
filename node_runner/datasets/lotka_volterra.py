"""The Lotka-Volterra equations of a predator and its prey, whose orbits are closed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from node_runner.datasets import DATASETS
from node_runner.datasets.parts.simulate import AnyArray, Simulation, stack_last
from node_runner.datasets.parts.streams import Array
from node_runner.errors import ConfigError
from node_runner.settings import Above, AtMost, Positive
from node_runner.views import Equation, View


@DATASETS.register("lotka-volterra", "populations of a predator and its prey, on closed orbits")
@dataclass(kw_only=True)
class LotkaVolterra(Simulation):
    """prey' = alpha prey - beta prey predator, predator' = -gamma predator + delta prey predator.

    Orbits circle the equilibrium (gamma/delta, alpha/beta), (20, 10) by default, in about
    2 pi / sqrt(alpha gamma) = 5.1 units of time near it. Trajectories start in a box about it, which
    holds the often used start (10, 5).

    Args:
        alpha: growth of the prey.
        beta: prey eaten, a predator.
        gamma: death of the predators.
        delta: growth of the predators, a prey.
        spread: the box reaches from 1 - spread to 1 + spread times the equilibrium, on both axes.

    Source: Lotka, Elements of Physical Biology, 1925, ch. VIII; Volterra, Nature 118, 1926, p. 558.
    """

    name = "lotka-volterra"
    labels = ("prey", "predator")
    remedy = "lower dataset.horizon or dataset.long_factor, or move dataset.start"

    alpha: Positive = 1.0
    beta: Positive = 0.1
    gamma: Positive = 1.5
    delta: Positive = 0.075
    spread: Annotated[float, Above(0), AtMost(1)] = 0.6

    def __post_init__(self) -> None:
        for setting, states in (("start", self.start), ("long_start", self.long_start)):
            if any(population < 0 for state in states or [] for population in state):
                raise ConfigError(f"dataset.{setting}: expected populations of at least 0, got {states}")
        super().__post_init__()

    def draw(self, generator: np.random.Generator, count: int) -> Array:
        """States (count, 2) in the box about the equilibrium."""
        equilibrium = np.array([self.gamma / self.delta, self.alpha / self.beta])
        box: Array = equilibrium * generator.uniform(1 - self.spread, 1 + self.spread, (count, 2))
        return box

    def vector_field(self, t: Any, y: AnyArray) -> AnyArray:
        """dy/dt at y (..., 2), an array or a tensor; t is not used."""
        return predation(t, y, alpha=self.alpha, beta=self.beta, gamma=self.gamma, delta=self.delta)

    def equation(self) -> Equation:
        """The equations with their four coefficients unknown."""
        return Equation(
            predation,
            {"alpha": 0.5, "beta": 0.05, "gamma": 0.5, "delta": 0.05},
            {"alpha": self.alpha, "beta": self.beta, "gamma": self.gamma, "delta": self.delta},
        )

    def check(self) -> None:
        """Make the data, so that a population that grows too far is refused before any work."""
        self.splits(View.trajectories)


def predation(t: Any, y: Any, *, alpha: Any, beta: Any, gamma: Any, delta: Any) -> Any:
    """(prey (alpha - beta predator), predator (delta prey - gamma)) at y (..., 2), an array or a tensor."""
    prey, predator = y[..., 0], y[..., 1]
    return stack_last(prey * (alpha - beta * predator), predator * (delta * prey - gamma))
