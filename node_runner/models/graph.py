"""A neural ODE on a graph: one network moves every node, told of the node and of its neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from node_runner.errors import ConfigError
from node_runner.learning import Regulariser
from node_runner.models import MODELS
from node_runner.models.block import MakeField, ODEBlock
from node_runner.models.trajectory import TrajectoryModel
from node_runner.models.views import learns_from
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

    The graph is given and f is the same at all nodes, so the size of the model does not depend on the graph, and
    another numbering of the nodes gives the same prediction in that numbering. States are standardised with one mean
    and deviation a feature, those of all nodes together.

    Source: Poli, Massaroli, Park, Yamashita, Asama, Park, Graph Neural Ordinary Differential Equations (2019); with the
    Laplacian, diffusion as in Chamberlain et al., GRAND: Graph Neural Diffusion (2021), without attention.

    Args:
        spec: of the data, with their graph.
        make_field: makes f, given the 2 F numbers that it is told of a node with F features.
        solve: the differentiable solve.
        regularisers: integrated along the solve.
        mixing: P.

    Raises:
        ConfigError: the data have no graph.
    """
    if spec.graph is None:
        raise ConfigError(
            f"model=graph needs a graph, and dataset={spec.dataset} gives none: use model=node, or a data set with a "
            "graph such as dataset=diffusion"
        )
    matrix = mixed(spec.graph.adjacency, mixing)
    features = spec.shape[0] // len(matrix)

    def field(shape: tuple[int, ...]) -> nn.Module:
        return MessagePassing(make_field((2 * features,), features), matrix)

    return TrajectoryModel(pooled(spec, len(matrix)), ODEBlock(field, solve, regularisers, spec.shape))


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
    return (degrees.diag() - adjacency) / degrees.mean()


def pooled(spec: DataSpec, nodes: int) -> DataSpec:
    """The same data with one mean and deviation for each feature of all nodes."""
    means, variances = (x.expand(spec.shape).reshape(nodes, -1) for x in (spec.mean, spec.std.square()))
    mean = means.mean(dim=0)
    std = (variances + (means - mean).square()).mean(dim=0).sqrt()
    return replace(spec, mean=mean.repeat(nodes), std=std.repeat(nodes))


class MessagePassing(nn.Module):
    """d/dt x_i = f(t, [x_i, (P x)_i]) for a state (B, n F) of n nodes with F features each, node by node.

    Args:
        network: f, (t, (B n, 2 F)) -> (B n, F).
        matrix: P, (n, n).
    """

    matrix: Tensor

    def __init__(self, network: nn.Module, matrix: Tensor) -> None:
        super().__init__()
        self.network = network
        self.time_dependent = getattr(network, "time_dependent", True)
        self.register_buffer("matrix", matrix.clone())

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """t: () or (B,), y: (B, n F) -> (B, n F)."""
        nodes = len(self.matrix)
        x = y.unflatten(1, (nodes, -1))
        told = torch.cat((x, self.matrix @ x), dim=2).flatten(0, 1)
        slope: Tensor = self.network(t if t.ndim == 0 else t.repeat_interleave(nodes), told)
        return slope.reshape(y.shape)
