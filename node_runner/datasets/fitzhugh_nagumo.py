"""The FitzHugh-Nagumo model of a nerve cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from node_runner.datasets import DATASETS
from node_runner.datasets.parts.simulate import AnyArray, Simulation, stack_last
from node_runner.datasets.parts.streams import Array
from node_runner.settings import Positive
from node_runner.views import Equation


@DATASETS.register("fitzhugh_nagumo", "a nerve cell that fires: a fast voltage and a slow recovery")
@dataclass(kw_only=True)
class FitzHughNagumo(Simulation):
    """v' = v - v^3/3 - w + current, w' = (v + a - b w) / tau in the state (v, w), voltage and recovery.

    With the default current the cell fires periodically, about every 40 units of time; below 0.33 it comes to rest. The
    larger tau, the slower the recovery and the sharper the spikes.

    Args:
        a, b: where and how steeply recovery follows the voltage.
        tau: time scale of the recovery; that of the voltage is 1.
        current: what is injected into the cell.
        spread: trajectories start in the square of states no further than this from 0, on both axes.

    Source: FitzHugh, Impulses and physiological states in theoretical models of nerve membrane, Biophysical Journal 1,
    1961; the parameters are his.
    """

    name = "fitzhugh_nagumo"
    labels = ("v", "w")
    remedy = "lower dataset.spread, or move dataset.start"
    stiff = True

    a: Positive = 0.7
    b: Positive = 0.8
    tau: Positive = 12.5
    current: Positive = 0.5
    spread: Positive = 2.0
    horizon: Positive = 50.0

    def draw(self, generator: np.random.Generator, count: int) -> Array:
        """States (count, 2) in the square."""
        return generator.uniform(-self.spread, self.spread, (count, 2))

    def vector_field(self, t: Any, y: AnyArray) -> AnyArray:
        """dy/dt at y (..., 2), an array or a tensor; t is not used."""
        return nerve(t, y, a=self.a, b=self.b, tau=self.tau, current=self.current)

    def equation(self) -> Equation:
        """The model with its four parameters unknown."""
        truth = {"a": self.a, "b": self.b, "tau": self.tau, "current": self.current}
        return Equation(nerve, {"a": 0.5, "b": 0.5, "tau": 5.0, "current": 0.3}, truth)


def nerve(t: Any, y: Any, *, a: Any, b: Any, tau: Any, current: Any) -> Any:
    """(v - v^3/3 - w + current, (v + a - b w) / tau) at y (..., 2), an array or a tensor."""
    v, w = y[..., 0], y[..., 1]
    return stack_last(v - v**3 / 3 - w + current, (v + a - b * w) / tau)
