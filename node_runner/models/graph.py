"""A neural ODE on a graph: one network moves every node, told of the node and of its neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from node_runner.errors import ConfigError
from node_runner.learning import ModelOutput, Regulariser
from node_runner.models import MODELS
from node_runner.models.parts.block import MakeField, ODEBlock
from node_runner.models.parts.declarations import learns_from
from node_runner.models.parts.trajectory import TrajectoryModel
from node_runner.settings import Mixing
from node_runner.types import Integrate
from node_runner.views import DataSpec, View


@MODELS.register("graph", "neural ODE on a graph: each node changes by its own state and its neighbours', all alike")
@learns_from(View.trajectories)
def graph(
    spec: DataSpec,
    make_field: MakeField,
    solve: Integrate,
    regularisers: Mapping[str, Regulariser],
    /,
    *,
    mixing: Mixing = Mixing.laplacian,
) -> nn.Module:
    """dx_i/dt = f(t, x_i, (P x)_i) at every node i, f a network and P the mixing of neighbours.

    The graph is given and f is the same at all nodes, so the weights fit any graph, and another numbering of the nodes
    gives the same prediction in that numbering. States are standardised with one mean and deviation a feature, those
    of all nodes together.

    Source: Poli, Massaroli, Park, Yamashita, Asama, Park, Graph Neural Ordinary Differential Equations (2019); with the
    Laplacian, diffusion as in Chamberlain et al., GRAND: Graph Neural Diffusion (2021), without attention.

    Args:
        spec: of the data, with their graph.
        make_field: makes f, given the 2 F numbers that it is told of a node with F features.
        solve: the differentiable solve.
        regularisers: integrated along the solve.
        mixing: P, what a node is told of its neighbours: laplacian by how much it exceeds them, random_walk their
            mean, gcn the normalised sum that counts it in.

    Raises:
        ConfigError: the data have no graph.
    """
    if spec.graph is None:
        raise ConfigError(
            f"model=graph needs a graph, and dataset={spec.dataset} gives none: use model=node, or a data set with a "
            "graph such as dataset=diffusion"
        )
    matrix = mixed(spec.graph.adjacency, mixing)
    nodes, features = len(matrix), spec.shape[0] // len(matrix)

    def field(shape: tuple[int, ...]) -> nn.Module:
        return MessagePassing(make_field((2 * features,), features), matrix)

    return GraphModel(pooled(spec, nodes), ODEBlock(field, solve, regularisers, (nodes, features)))


def mixed(adjacency: Tensor, mixing: Mixing) -> Tensor:
    """P (n, n) from the weights of the edges (n, n)."""
    if mixing is Mixing.gcn:
        looped = adjacency + torch.eye(len(adjacency)).to(adjacency)
        scale = looped.sum(dim=1).rsqrt()
        return scale[:, None] * looped * scale
    degrees = adjacency.sum(dim=1)
    if mixing is Mixing.random_walk:
        # A node without neighbours is told 0.
        return adjacency / torch.where(degrees > 0, degrees, 1)[:, None]
    return degrees.diag() - adjacency


def pooled(spec: DataSpec, nodes: int) -> DataSpec:
    """The same data node by node, (n, F), with the mean and deviation (F,) of each feature at all nodes."""
    means, variances = (x.expand(spec.shape).reshape(nodes, -1) for x in (spec.mean, spec.std.square()))
    mean = means.mean(dim=0)
    std = (variances + (means - mean).square()).mean(dim=0).sqrt()
    return replace(spec, shape=tuple(means.shape), mean=mean, std=std)


class MessagePassing(nn.Module):
    """d/dt x_i = f(t, [x_i, (P x)_i]) for a state (B, n, F) of n nodes with F features each.

    Args:
        network: f, (t, (B n, 2 F)) -> (B n, F).
        matrix: P, (n, n). It belongs to the data, not to the weights.
    """

    matrix: Tensor

    def __init__(self, network: nn.Module, matrix: Tensor) -> None:
        super().__init__()
        self.network = network
        self.time_dependent = getattr(network, "time_dependent", True)
        self.register_buffer("matrix", matrix.clone(), persistent=False)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        """t: () or (B,), x: (B, n, F) -> (B, n, F)."""
        told = torch.cat((x, self.matrix @ x), dim=2).flatten(0, 1)
        slope: Tensor = self.network(t if t.ndim == 0 else t.repeat_interleave(len(self.matrix)), told)
        return slope.reshape(x.shape)


class GraphModel(TrajectoryModel):
    """A model of trajectories that is solved node by node: its weights fit a graph of any size.

    Args:
        spec: of the data, of shape (n, F).
        block: for states (n, F).
    """

    def __init__(self, spec: DataSpec, block: ODEBlock) -> None:
        super().__init__(spec, block)
        self.nodes, self.dim = spec.shape

    def forward(self, y0: Tensor, ts: Tensor, t0: Tensor | None = None) -> ModelOutput:
        """y0: (B, n F), ts: (T,) from the start, t0: (B,) or None -> states (T, B, n F)."""
        output = super().forward(y0.unflatten(1, (self.nodes, self.dim)), ts, t0)
        return output._replace(value=output.value.flatten(2))

    def vector_field(self, t: Tensor, y: Tensor) -> Tensor:
        """dy/dt in the data's units at t () or (B,) for y (B, n F) -> (B, n F)."""
        return super().vector_field(t, y.unflatten(1, (self.nodes, self.dim))).flatten(1)
