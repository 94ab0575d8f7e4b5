import numpy as np
import pytest
import torch

from node_runner.datasets.diffusion import Diffusion
from node_runner.datasets.parts.graphs import laplacian, make_graph
from node_runner.datasets.parts.reference import solve
from node_runner.errors import ConfigError
from node_runner.settings import GraphShape
from node_runner.views import View


SHAPES = list(GraphShape)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.value)
@pytest.mark.parametrize("nodes", [2, 3, 7, 12])
def test_a_graph_is_connected_symmetric_and_without_loops(shape: GraphShape, nodes: int):
    graph = make_graph(shape, nodes, np.random.default_rng(1))
    assert torch.equal(graph.adjacency, graph.adjacency.T)
    assert float(graph.adjacency.diag().abs().sum()) == 0
    assert graph.places.shape == (nodes, 2)
    # As many zero eigenvalues as there are pieces.
    rates = np.linalg.eigvalsh(laplacian(graph))
    assert abs(rates[0]) < 1e-12
    assert rates[1] > 1e-3


def test_a_grid_is_as_near_to_a_square_as_its_number_allows_and_a_ring_is_one():
    grid = make_graph(GraphShape.grid, 12, np.random.default_rng(0))  # 3 x 4
    assert grid.places.max(dim=0).values.tolist() == [3, 2]
    assert int(grid.adjacency.sum()) == 2 * (3 * 3 + 2 * 4)
    ring = make_graph(GraphShape.ring, 5, np.random.default_rng(0))
    assert ring.adjacency.sum(dim=1).tolist() == [2] * 5
    assert ring.adjacency[0].tolist() == [0, 1, 0, 0, 1]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.value)
def test_the_closed_form_solves_the_equation(shape: GraphShape):
    data, ts = Diffusion(nodes=6, shape=shape, conductivity=0.7), np.linspace(0, 3, 7)
    y0 = np.random.default_rng(0).normal(size=(3, 6))
    np.testing.assert_allclose(data.solution(ts, y0), solve(data.vector_field, ts, y0), rtol=0, atol=1e-11)


def test_two_nodes_share_their_heat_at_twice_the_conductivity():
    train = Diffusion(nodes=2, hot=1, conductivity=0.5, start=[[1.0, 0.0]], long=0).splits(View.trajectories).train
    torch.testing.assert_close(train.ys[0, :, 0], (1 + torch.exp(-train.ts)) / 2, rtol=0, atol=1e-14)


def test_heat_is_conserved_in_all_data_without_growth_and_no_energy_is_named_with_it():
    data = Diffusion()
    energy = data.spec(View.trajectories).energy
    for _, part in data.splits(View.trajectories).items():
        heat = energy(part.ys)
        torch.testing.assert_close(heat, heat[:, :1].expand_as(heat), rtol=0, atol=1e-12)
    assert data.spec(View.trajectories).conserved == "heat"
    assert Diffusion(growth=1.0, long=0).spec(View.trajectories).energy is None


def test_with_growth_a_uniform_state_follows_the_logistic_curve():
    data = Diffusion(nodes=4, hot=1, growth=2.0, start=[[0.25] * 4], long=0)
    train = data.splits(View.trajectories).train
    expected = 1 / (1 + 3 * torch.exp(-2 * train.ts))
    torch.testing.assert_close(train.ys[0], expected[:, None].expand(-1, 4), rtol=0, atol=1e-11)


def test_its_equation_with_the_true_parameters_is_its_field_for_arrays_and_tensors():
    data = Diffusion(nodes=5, conductivity=0.3, growth=1.5)
    y = torch.randn(4, 5, dtype=torch.float64)
    found = data.equation().form(0.0, y, conductivity=0.3, growth=1.5)
    assert list(data.equation().parameters) == ["conductivity", "growth"]
    assert list(Diffusion().equation().parameters) == ["conductivity"]
    torch.testing.assert_close(found, data.vector_field(0.0, y))
    np.testing.assert_allclose(data.vector_field(0.0, y.numpy()), found.numpy(), rtol=1e-13)


def test_a_trajectory_begins_with_as_many_hot_nodes_as_were_asked_for():
    starts = Diffusion(nodes=9, hot=2).splits(View.trajectories).train.ys[:, 0]
    hot = starts[starts > 1e-12]
    assert ((starts > 1e-12).sum(dim=1) == 2).all()
    assert float(hot.min()) >= 0.5 - 1e-12
    assert float(hot.max()) <= 1 + 1e-12


def test_the_seed_draws_the_graph_and_its_specification_has_it():
    graphs = [Diffusion(seed=seed).spec(View.points).graph.adjacency for seed in (0, 0, 1)]
    assert torch.equal(graphs[0], graphs[1])
    assert not torch.equal(graphs[0], graphs[2])


def test_more_hot_nodes_than_nodes_are_refused():
    with pytest.raises(ConfigError, match=r"^dataset\.hot=3: expected at most dataset\.nodes=2; use"):
        Diffusion(nodes=2)
