"""The damped harmonic oscillator, whose solution is known in closed form."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from node_runner.datasets import DATASETS
from node_runner.datasets.parts.simulate import AnyArray, Simulation, stack_last
from node_runner.datasets.parts.streams import Array
from node_runner.settings import Count, CountOrZero, NonNegative, Positive
from node_runner.views import Equation


@DATASETS.register("oscillator", "a damped harmonic oscillator, position and velocity")
@dataclass(kw_only=True)
class Oscillator(Simulation):
    """x'' + 2 zeta omega_n x' + omega_n^2 x = 0 as a system in the state (x, v), v = x'.

    Trajectories start in the square [-radius, radius]^2; the long-horizon test is released from rest at
    x = 1. The data are the closed form, not a numerical solution.

    Args:
        zeta: damping ratio: 0 undamped, below 1 oscillating, 1 critical, above 1 overdamped.
        omega_n: natural frequency, radians a unit of time.
        radius: half the side of the square of initial states.
    """

    name = "oscillator"
    labels = ("x", "v")
    remedy = "lower dataset.start or dataset.omega_n"

    zeta: NonNegative = 0.1
    omega_n: Positive = 2.0
    radius: Positive = 2.0
    train: Count = 10
    val: Count = 5
    test: Count = 5
    long: CountOrZero = 1
    horizon: Positive = 5.0
    long_start: list[list[float]] | None = field(default_factory=lambda: [[1.0, 0.0]])

    def draw(self, generator: np.random.Generator, count: int) -> Array:
        """States (count, 2) in the square."""
        return generator.uniform(-self.radius, self.radius, (count, 2))

    def vector_field(self, t: Any, y: AnyArray) -> AnyArray:
        """dy/dt at y (..., 2), an array or a tensor; t is not used."""
        return damped(t, y, zeta=self.zeta, omega_n=self.omega_n)

    def equation(self) -> Equation:
        """The equation of motion with damping and frequency unknown."""
        return Equation(damped, {"zeta": 0.5, "omega_n": 1.0}, {"zeta": self.zeta, "omega_n": self.omega_n})

    def solution(self, ts: Array, y0: Array) -> Array:
        """The solution in closed form, (T, B, 2) from ts (T,) and y0 (B, 2), for every damping.

        With c(t), s(t) = exp(-zeta omega_n t) times cos(w t), sin(w t)/w of the damped frequency w, or
        times cosh(w t), sinh(w t)/w where it is imaginary:
        x = x0 c + (v0 + zeta omega_n x0) s and v = v0 c - (zeta omega_n v0 + omega_n^2 x0) s.
        """
        t = ts[:, None]
        rate = self.zeta * self.omega_n
        w = self.omega_n * np.sqrt(abs((1 - self.zeta) * (1 + self.zeta)))
        if self.zeta <= 1:
            decay = np.exp(-rate * t)
            c = decay * np.cos(w * t)
            s = decay * t * np.sinc(w * t / np.pi)  # np.sinc(x) = sin(pi x)/(pi x), and 1 at 0: the critical case
        else:
            # exp(-rate t) cosh(w t) would overflow, and w - rate would cancel: factor out the slower decay.
            slow = np.exp(-(self.omega_n**2) / (rate + w) * t)
            c = slow * (1 + np.exp(-2 * w * t)) / 2
            s = slow * -np.expm1(-2 * w * t) / (2 * w)
        x, v = y0[:, 0], y0[:, 1]
        return stack_last(x * c + (v + rate * x) * s, v * c - (rate * v + self.omega_n**2 * x) * s)


def damped(t: Any, y: Any, *, zeta: Any, omega_n: Any) -> Any:
    """(v, -2 zeta omega_n v - omega_n^2 x) at y (..., 2), an array or a tensor."""
    x, v = y[..., 0], y[..., 1]
    return stack_last(v, -2 * zeta * omega_n * v - omega_n**2 * x)
