"""Heat that spreads over the edges of a small graph, known in closed form."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from node_runner.datasets import DATASETS
from node_runner.datasets.parts.graphs import laplacian, make_graph
from node_runner.datasets.parts.simulate import AnyArray, Simulation
from node_runner.datasets.parts.streams import Array, stream
from node_runner.errors import ConfigError
from node_runner.settings import AtLeast, Count, GraphShape, NonNegative, Positive
from node_runner.views import DataSpec, Equation, View


GRAPH = 4
"""Key of the random stream of the graph, beside those of the parts."""


@DATASETS.register("diffusion", "heat that spreads over the edges of a graph from a few hot nodes")
@dataclass(kw_only=True)
class Diffusion(Simulation):
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
        seed: of the graph, if it is random, of initial states and noise; the seed of the training does not touch them.

    Raises:
        ConfigError: more hot nodes than nodes.
    """

    name = "diffusion"
    remedy = "use no negative temperatures in dataset.start"

    nodes: Annotated[int, AtLeast(2)] = 20
    shape: GraphShape = GraphShape.random
    conductivity: Positive = 1.0
    growth: NonNegative = 0.0
    hot: Count = 3
    times: Annotated[int, AtLeast(2)] = 50
    horizon: Positive = 2.0
    long_factor: Annotated[float, AtLeast(1)] = 4.0

    def __post_init__(self) -> None:
        if self.hot > self.nodes:
            raise ConfigError(
                f"dataset.hot={self.hot}: expected at most dataset.nodes={self.nodes}; use fewer hot nodes"
            )
        super().__post_init__()
        self.graph = make_graph(self.shape, self.nodes, stream(self.seed, GRAPH))
        self._laplacian = laplacian(self.graph)
        self._form = functools.partial(spread, matrix=self._laplacian)

    @property
    def labels(self) -> tuple[str, ...]:
        """One a node."""
        return tuple(f"x{i + 1}" for i in range(self.nodes))

    def draw(self, generator: np.random.Generator, count: int) -> Array:
        """Temperatures (count, n) of a few hot nodes."""
        order = generator.random((count, self.nodes)).argsort(axis=1)
        return np.where(order < self.hot, generator.uniform(0.5, 1.0, (count, self.nodes)), 0.0)

    def vector_field(self, t: Any, y: AnyArray) -> AnyArray:
        """dy/dt at y (..., n), an array or a tensor; t is not used."""
        slope: AnyArray = self._form(t, y, conductivity=self.conductivity, growth=self.growth)
        return slope

    def solution(self, ts: Array, y0: Array) -> Array:
        """(T, B, n) from ts (T,) and y0 (B, n): exp(-k L t) y0 without growth, a solve with it."""
        if self.growth:
            return super().solution(ts, y0)
        rates, modes = np.linalg.eigh(self.conductivity * self._laplacian)
        states: Array = (np.exp(-ts[:, None, None] * rates) * (y0 @ modes)) @ modes.T
        return states

    def spec(self, view: View) -> DataSpec:
        """Beside the rest, the graph, and the heat where it is conserved."""
        return replace(super().spec(view), graph=self.graph, energy=None if self.growth else heat, conserved="heat")

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
