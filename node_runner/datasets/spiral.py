"""A spiral in the plane, linear or cubic: the classic first example of a Neural ODE."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from node_runner.datasets import DATASETS
from node_runner.datasets.parts.simulate import AnyArray, Simulation, stack_last
from node_runner.datasets.parts.streams import Array
from node_runner.errors import ConfigError
from node_runner.settings import Count, Positive, SpiralForm
from node_runner.views import Equation, View


@DATASETS.register("spiral", "a decaying spiral in the plane, linear, or cubic as in torchdiffeq's demo")
@dataclass(kw_only=True)
class Spiral(Simulation):
    """dy/dt = y^3 A (cubic) or y A (linear), with y a row vector and A = [[-alpha, beta], [-beta, -alpha]].

    Trajectories start in a ring about the origin. alpha = 0.1, beta = 2 and the cubic form are those of
    torchdiffeq's examples/ode_demo.py, whose one trajectory is that of `form=cubic start=[[2.0,0.0]]
    horizon=25 times=1000`.

    Args:
        form: cubic (each component of y cubed) or linear.
        alpha: decay; below 0 the spiral grows, and the cubic one then reaches infinity in finite time.
        beta: rotation, radians a unit of time (linear).
        radius_min, radius_max: radii of the ring.
    """

    name = "spiral"
    labels = ("x", "y")
    remedy = "lower dataset.horizon, dataset.long_factor or dataset.radius_max, or raise dataset.alpha"

    form: SpiralForm = SpiralForm.linear
    alpha: float = 0.1
    beta: float = 2.0
    radius_min: Positive = 1.0
    radius_max: Positive = 2.0
    train: Count = 24
    horizon: Positive = 6.0

    def __post_init__(self) -> None:
        if self.radius_min > self.radius_max:
            raise ConfigError(f"dataset.radius_min={self.radius_min:g} is above dataset.radius_max={self.radius_max:g}")
        super().__post_init__()

    def draw(self, generator: np.random.Generator, count: int) -> Array:
        """States (count, 2) in the ring."""
        low, high = (self.radius_min, 0.0), (self.radius_max, 2 * np.pi)
        radius, angle = generator.uniform(low, high, (count, 2)).T
        return stack_last(radius * np.cos(angle), radius * np.sin(angle))

    def vector_field(self, t: Any, y: AnyArray) -> AnyArray:
        """dy/dt at y (..., 2), an array or a tensor; t is not used."""
        return turning(t, y, alpha=self.alpha, beta=self.beta, power=self._power)

    def equation(self) -> Equation | None:
        """The equation with decay and rotation unknown, where both are above 0."""
        if self.alpha <= 0 or self.beta <= 0:
            return None
        form = functools.partial(turning, power=self._power)
        return Equation(form, {"alpha": 0.5, "beta": 1.0}, {"alpha": self.alpha, "beta": self.beta})

    @property
    def _power(self) -> int:
        return 3 if self.form is SpiralForm.cubic else 1

    def solution(self, ts: Array, y0: Array) -> Array:
        """(T, B, 2) from ts (T,) and y0 (B, 2): y0 exp(A t) of the linear form, a solve of the cubic one."""
        if self.form is SpiralForm.cubic:
            return super().solution(ts, y0)
        t = ts[:, None]
        decay, cos, sin = np.exp(-self.alpha * t), np.cos(self.beta * t), np.sin(self.beta * t)
        first, second = y0[:, 0], y0[:, 1]
        return stack_last(decay * (cos * first - sin * second), decay * (sin * first + cos * second))

    def check(self) -> None:
        """Make the data, so that a spiral that grows too fast is refused before any work."""
        self.splits(View.trajectories)


def turning(t: Any, y: Any, *, alpha: Any, beta: Any, power: int) -> Any:
    """y^power A at y (..., 2), an array or a tensor."""
    u = y**power
    first, second = u[..., 0], u[..., 1]
    return stack_last(-alpha * first - beta * second, beta * first - alpha * second)
