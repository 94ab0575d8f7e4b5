"""A spiral in the plane, linear or cubic: the classic first example of a Neural ODE."""

from __future__ import annotations

import functools
from typing import Annotated, Any

import numpy as np

from node_runner.datasets import DATASETS
from node_runner.datasets.simulate import AnyArray, Array, Simulated, Simulation, solve, stack_last
from node_runner.errors import ConfigError
from node_runner.settings import AtLeast, Count, CountOrZero, NonNegative, Positive, SpiralForm
from node_runner.views import Equation, View


@DATASETS.register("spiral", "a decaying spiral in the plane, linear, or cubic as in torchdiffeq's demo")
class Spiral(Simulated):
    """dy/dt = y^3 A (cubic) or y A (linear), with y a row vector and A = [[-alpha, beta], [-beta, -alpha]].

    Trajectories start in a ring about the origin. alpha = 0.1, beta = 2 and the cubic form are those of
    torchdiffeq's examples/ode_demo.py, whose one trajectory is that of `form=cubic start=[[2.0,0.0]]
    horizon=25 times=1000`.

    Args:
        form: cubic (each component of y cubed) or linear.
        alpha: decay; below 0 the spiral grows, and the cubic one then reaches infinity in finite time.
        beta: rotation, radians a unit of time (linear).
        radius_min, radius_max: radii of the ring.
        train, val, test, long, times, horizon, long_factor, start, long_start, noise, seed: see
            `simulate.Simulation`. With `start` given, `train` is ignored.
    """

    def __init__(
        self,
        *,
        form: SpiralForm = SpiralForm.linear,
        alpha: float = 0.1,
        beta: float = 2.0,
        radius_min: Positive = 1.0,
        radius_max: Positive = 2.0,
        train: Count = 24,
        val: Count = 8,
        test: Count = 8,
        long: CountOrZero = 8,
        times: Annotated[int, AtLeast(2)] = 100,
        horizon: Positive = 6.0,
        long_factor: Annotated[float, AtLeast(1)] = 2.0,
        start: list[list[float]] | None = None,
        long_start: list[list[float]] | None = None,
        noise: NonNegative = 0.0,
        seed: CountOrZero = 0,
    ) -> None:
        if radius_min > radius_max:
            raise ConfigError(f"dataset.radius_min={radius_min:g} is above dataset.radius_max={radius_max:g}")
        self.form = form
        self.alpha = alpha
        self.beta = beta
        self.radii = (radius_min, radius_max)
        self._simulation = Simulation(
            name="spiral",
            flow=self._flow,
            draw=self._draw,
            labels=("x", "y"),
            equation=self.equation(),
            remedy="lower dataset.horizon, dataset.long_factor or dataset.radius_max, or raise dataset.alpha",
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
        )

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

    def exact(self, ts: Array, y0: Array) -> Array | None:
        """y0 exp(A t) of the linear form, (T, B, 2) from ts (T,) and y0 (B, 2); None for the cubic one."""
        if self.form is SpiralForm.cubic:
            return None
        t = ts[:, None]
        decay, cos, sin = np.exp(-self.alpha * t), np.cos(self.beta * t), np.sin(self.beta * t)
        first, second = y0[:, 0], y0[:, 1]
        return stack_last(decay * (cos * first - sin * second), decay * (sin * first + cos * second))

    def check(self) -> None:
        """Make the data, so that a spiral that grows too fast is refused before any work."""
        self._simulation.splits(View.trajectories)

    def _flow(self, ts: Array, y0: Array) -> Array:
        exact = self.exact(ts, y0)
        return solve(self.vector_field, ts, y0) if exact is None else exact

    def _draw(self, generator: np.random.Generator, count: int) -> Array:
        radius, angle = generator.uniform((self.radii[0], 0.0), (self.radii[1], 2 * np.pi), (count, 2)).T
        return stack_last(radius * np.cos(angle), radius * np.sin(angle))


def turning(t: Any, y: Any, *, alpha: Any, beta: Any, power: int) -> Any:
    """y^power A at y (..., 2), an array or a tensor."""
    u = y**power
    first, second = u[..., 0], u[..., 1]
    return stack_last(-alpha * first - beta * second, beta * first - alpha * second)
