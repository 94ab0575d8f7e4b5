"""Heat that spreads over the edges of a small graph, known in closed form."""

from __future__ import annotations

import functools
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from node_runner.datasets import DATASETS
from node_runner.datasets.graphs import laplacian, make_graph
from node_runner.datasets.parts import stream
from node_runner.datasets.simulate import AnyArray, Array, Simulated, Simulation, solve
from node_runner.errors import ConfigError
from node_runner.settings import AtLeast, Count, CountOrZero, GraphShape, NonNegative, Positive
from node_runner.views import Equation


GRAPH = 4
"""Key of the random stream of the graph, beside those of the parts."""


@DATASETS.register("diffusion", "heat that spreads over the edges of a graph from a few hot nodes")
class Diffusion(Simulated):
    """x' = -k L x + r x (1 - x) in the state (x_1..x_n), a temperature a node, L = D - A the graph's Laplacian.

    Without growth (r = 0) the sum of x, the heat, is conserved, and the solution is exp(-k L t) x(0). With it the
    equation is Fisher's on a graph: what has begun at one node spreads to all.
    A trajectory starts with `hot` nodes drawn at random, at a temperature drawn from [0.5, 1], and 0 elsewhere.

    Args:
        nodes: number of nodes, n.
        shape: of the graph: a random one in the plane, a square grid, or a ring.
        conductivity: k of every edge.
        growth: r of Fisher's equation (0: heat alone).
        hot: nodes that are hot at first.
        train, val, test, long, times, horizon, long_factor, start, long_start, noise, seed: see
            `simulate.Simulation`. With `start` given, `train` is ignored. The seed draws a random graph too.

    Raises:
        ConfigError: more hot nodes than nodes.
    """

    def __init__(
        self,
        *,
        nodes: Annotated[int, AtLeast(2)] = 20,
        shape: GraphShape = GraphShape.random,
        conductivity: Positive = 1.0,
        growth: NonNegative = 0.0,
        hot: Count = 3,
        train: Count = 16,
        val: Count = 8,
        test: Count = 8,
        long: CountOrZero = 8,
        times: Annotated[int, AtLeast(2)] = 50,
        horizon: Positive = 2.0,
        long_factor: Annotated[float, AtLeast(1)] = 4.0,
        start: list[list[float]] | None = None,
        long_start: list[list[float]] | None = None,
        noise: NonNegative = 0.0,
        seed: CountOrZero = 0,
    ) -> None:
        if hot > nodes:
            raise ConfigError(f"dataset.hot={hot}: expected at most dataset.nodes={nodes}; use fewer hot nodes")
        self.conductivity, self.growth = conductivity, growth
        graph = make_graph(shape, nodes, stream(seed, GRAPH))
        self._laplacian = laplacian(graph)
        self._form = functools.partial(spread, matrix=self._laplacian)

        def draw(generator: np.random.Generator, count: int) -> Array:
            order = generator.random((count, nodes)).argsort(axis=1)
            return np.where(order < hot, generator.uniform(0.5, 1.0, (count, nodes)), 0.0)

        self._simulation = Simulation(
            name="diffusion",
            flow=(lambda ts, y0: solve(self.vector_field, ts, y0)) if growth else self.exact,
            draw=draw,
            labels=tuple(f"x{i + 1}" for i in range(nodes)),
            remedy="use no negative temperatures in dataset.start",
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
            energy=None if growth else heat,
            equation=self.equation(),
            graph=graph,
        )

    def vector_field(self, t: Any, y: AnyArray) -> AnyArray:
        """dy/dt at y (..., n), an array or a tensor; t is not used."""
        slope: AnyArray = self._form(t, y, conductivity=self.conductivity, growth=self.growth)
        return slope

    def exact(self, ts: Array, y0: Array) -> Array:
        """exp(-k L t) y0 without growth, (T, B, n) from ts (T,) and y0 (B, n)."""
        rates, modes = np.linalg.eigh(self.conductivity * self._laplacian)
        states: Array = (np.exp(-ts[:, None, None] * rates) * (y0 @ modes)) @ modes.T
        return states

    def equation(self) -> Equation:
        """The equation of this graph with the conductivity unknown, and the growth where there is any."""
        truth = {"conductivity": self.conductivity, **({"growth": self.growth} if self.growth else {})}
        return Equation(self._form, dict.fromkeys(truth, 0.5), truth)


def spread(t: Any, y: Any, *, matrix: Array, conductivity: Any, growth: Any = 0.0) -> Any:
    """-conductivity L y + growth y (1 - y) at y (..., n), an array or a tensor, with `matrix` for L."""
    mixed = y @ (torch.as_tensor(matrix).to(y) if isinstance(y, Tensor) else matrix)
    return growth * y * (1 - y) - conductivity * mixed


def heat(y: Any) -> Any:
    """The sum of the temperatures: (...,) from y (..., n), an array or a tensor."""
    return y.sum(-1)
