"""The FitzHugh-Nagumo model of a nerve cell."""

from __future__ import annotations

from typing import Annotated, Any

from node_runner.datasets import DATASETS
from node_runner.datasets.simulate import AnyArray, Simulated, Simulation, solve_stiff, stack_last
from node_runner.settings import AtLeast, Count, CountOrZero, NonNegative, Positive
from node_runner.views import Equation


@DATASETS.register("fitzhugh_nagumo", "a nerve cell that fires: a fast voltage and a slow recovery")
class FitzHughNagumo(Simulated):
    """v' = v - v^3/3 - w + current, w' = (v + a - b w) / tau in the state (v, w), voltage and recovery.

    With the default current the cell fires periodically, about every 40 units of time; below 0.33 it comes to rest. The
    larger tau, the slower the recovery and the sharper the spikes.

    Args:
        a, b: where and how steeply recovery follows the voltage.
        tau: time scale of the recovery; that of the voltage is 1.
        current: what is injected into the cell.
        spread: trajectories start in the square of states no further than this from 0, on both axes.
        train, val, test, long, times, horizon, long_factor, start, long_start, noise, seed: see
            `simulate.Simulation`. With `start` given, `train` is ignored.

    Source: FitzHugh, Impulses and physiological states in theoretical models of nerve membrane, Biophysical Journal 1,
    1961; the parameters are his.
    """

    def __init__(
        self,
        *,
        a: Positive = 0.7,
        b: Positive = 0.8,
        tau: Positive = 12.5,
        current: Positive = 0.5,
        spread: Positive = 2.0,
        train: Count = 16,
        val: Count = 8,
        test: Count = 8,
        long: CountOrZero = 8,
        times: Annotated[int, AtLeast(2)] = 100,
        horizon: Positive = 50.0,
        long_factor: Annotated[float, AtLeast(1)] = 2.0,
        start: list[list[float]] | None = None,
        long_start: list[list[float]] | None = None,
        noise: NonNegative = 0.0,
        seed: CountOrZero = 0,
    ) -> None:
        self.a, self.b, self.tau, self.current = a, b, tau, current
        self._simulation = Simulation(
            name="fitzhugh_nagumo",
            flow=lambda ts, y0: solve_stiff(self.vector_field, ts, y0),
            draw=lambda generator, count: generator.uniform(-spread, spread, (count, 2)),
            labels=("v", "w"),
            remedy="lower dataset.spread, or move dataset.start",
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
            equation=self.equation(),
        )

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
