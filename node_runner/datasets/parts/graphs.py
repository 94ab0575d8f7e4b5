"""Small graphs, each with a place in the plane for every node."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import cdist

from node_runner.datasets.parts.streams import Array
from node_runner.settings import GraphShape
from node_runner.views import Graph


NEAREST = 3
"""Neighbours that a node of a random graph chooses."""


def make_graph(shape: GraphShape, nodes: int, generator: np.random.Generator) -> Graph:
    """A connected graph of `nodes` nodes, each edge of weight 1.

    ring: each node has two neighbours. grid: as near to a square as the number allows, without a wrap. random: places
    are uniform in the unit square, each node is joined to its three nearest, and the shortest tree keeps it connected.
    """
    if shape is GraphShape.random:
        places = generator.uniform(size=(nodes, 2))
        distances = cdist(places, places)
        edges = minimum_spanning_tree(distances).toarray() > 0
        nearest = distances.argsort(axis=1)[:, 1 : NEAREST + 1]
        np.put_along_axis(edges, nearest, True, axis=1)
    elif shape is GraphShape.grid:
        rows = max(n for n in range(1, math.isqrt(nodes) + 1) if nodes % n == 0)
        places = np.stack(np.divmod(np.arange(nodes), nodes // rows), axis=1)[:, ::-1].astype(float)
        edges = np.isclose(cdist(places, places), 1)
    else:
        angles = 2 * math.pi * np.arange(nodes) / nodes
        places = np.stack((np.cos(angles), np.sin(angles)), axis=1)
        edges = np.roll(np.eye(nodes, dtype=bool), 1, axis=1)
    edges = (edges | edges.T) & ~np.eye(nodes, dtype=bool)
    return Graph(torch.from_numpy(edges.astype(np.float64)), torch.from_numpy(np.ascontiguousarray(places)))


def laplacian(graph: Graph) -> Array:
    """D - A, (n, n)."""
    adjacency = graph.adjacency.numpy()
    difference: Array = np.diag(adjacency.sum(axis=1)) - adjacency
    return difference
