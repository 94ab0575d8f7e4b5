"""ODEs on graphs: what a node is told, equality of all numberings, and gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from node_runner.errors import ConfigError
from node_runner.models.graph import MessagePassing, mixed, pooled
from node_runner.settings import Mixing
from node_runner.views import DataSpec, Graph, View
from tests.models.builders import field_factory, make_model, spec
from tests.problems import differentiable, make_method


ADJACENCY = torch.tensor(
    [[0, 1, 1, 0], [1, 0, 2, 0], [1, 2, 0, 1], [0, 0, 1, 0]], dtype=torch.float64
)  # fmt: skip
DEGREES = torch.tensor([2.0, 3.0, 4.0, 1.0], dtype=torch.float64)
TS = torch.linspace(0, 1, 4, dtype=torch.float64)


def data(features: int) -> DataSpec:
    """Four nodes, each axis with a mean and deviation of its own."""
    size = 4 * features
    mean, std = torch.linspace(-1, 2, size).tolist(), torch.linspace(0.5, 3, size).tolist()
    return spec(View.trajectories, (size,), mean=mean, std=std, graph=Graph(ADJACENCY, torch.zeros(4, 2)))


def starts(features: int) -> Tensor:
    return torch.randn(3, 4 * features, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Cooling(nn.Module):
    """Told [x, (P x)], a node loses (P x)."""

    time_dependent = False

    def forward(self, t: Tensor, told: Tensor) -> Tensor:
        return -told.chunk(2, dim=1)[1]


def test_the_mixings_are_those_of_their_formulas():
    torch.testing.assert_close(mixed(ADJACENCY, Mixing.laplacian), torch.diag(DEGREES) - ADJACENCY)
    torch.testing.assert_close(mixed(ADJACENCY, Mixing.random_walk), torch.diag(1 / DEGREES) @ ADJACENCY)
    root = torch.diag((DEGREES + 1).rsqrt())
    torch.testing.assert_close(mixed(ADJACENCY, Mixing.gcn), root @ (ADJACENCY + torch.eye(4)) @ root)


def test_a_node_without_neighbours_is_told_nothing_of_any():
    lonely = torch.tensor([[0, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=torch.float64)
    for mixing in (Mixing.laplacian, Mixing.random_walk):
        assert mixed(lonely, mixing)[2].tolist() == [0, 0, 0]


@pytest.mark.parametrize("features", [1, 2])
def test_it_solves_the_heat_equation_of_every_feature_in_the_units_of_the_data(features: int):
    model = make_model("graph", data(features), lambda shape, outputs: Cooling())
    y0 = starts(features)
    flows = torch.linalg.matrix_exp(-TS[:, None, None] * mixed(ADJACENCY, Mixing.laplacian))
    expected = torch.einsum("tij,bjf->tbif", flows, y0.unflatten(1, (4, features))).flatten(2)
    torch.testing.assert_close(model(y0, TS).value, expected, rtol=0, atol=1e-6)


def test_features_share_one_mean_and_deviation_that_are_those_of_all_their_values():
    values = torch.randn(50, 4, 2, dtype=torch.float64) * torch.rand(4, 2) + torch.arange(8).reshape(4, 2)
    flat = values.flatten(1)
    each = replace(data(2), mean=flat.mean(dim=0), std=flat.std(dim=0, correction=0))
    found = pooled(each, 4)
    assert found.shape == (4, 2)
    torch.testing.assert_close(found.mean, values.mean(dim=(0, 1)))
    torch.testing.assert_close(found.std, values.flatten(0, 1).std(dim=0, correction=0))


@pytest.mark.parametrize("mixing", list(Mixing), ids=lambda mixing: mixing.value)
@pytest.mark.parametrize("features", [1, 3])
def test_another_numbering_of_the_nodes_gives_the_same_prediction_in_that_numbering(features: int, mixing: Mixing):
    order = torch.tensor([2, 0, 3, 1])

    def renumbered(x: Tensor) -> Tensor:
        return x.unflatten(-1, (4, features))[..., order, :].flatten(-2)

    plain = data(features)
    graph = Graph(ADJACENCY[order][:, order], plain.graph.places[order])
    other = replace(plain, mean=renumbered(plain.mean), std=renumbered(plain.std), graph=graph)
    models = []
    for each in (plain, other):
        torch.manual_seed(0)
        models.append(make_model("graph", each, field_factory(time_dependent=True), mixing=mixing))
    y0, t0 = starts(features), torch.tensor([0.0, 0.5, 2.0], dtype=torch.float64)
    expected = renumbered(models[0](y0, TS, t0).value)
    torch.testing.assert_close(models[1](renumbered(y0), TS, t0).value, expected, rtol=0, atol=1e-9)
    assert not torch.allclose(models[1](y0, TS, t0).value, expected, atol=1e-3)


def test_its_weights_fit_another_graph_and_follow_that():
    model = make_model("graph", data(1), field_factory())
    ring = torch.ones(5, 5, dtype=torch.float64).triu(1).tril(1)
    ring = ring + ring.T
    ring[0, 4] = ring[4, 0] = 1
    other = spec(View.trajectories, (5,), mean=[7.0] * 5, std=[9.0] * 5, graph=Graph(ring, torch.zeros(5, 2)))
    moved = make_model("graph", other, field_factory())
    moved.load_state_dict(model.state_dict())
    assert torch.equal(moved.block.field.matrix, mixed(ring, Mixing.laplacian))
    # Where all nodes of both graphs are alike, the graph plays no part.
    torch.testing.assert_close(
        moved(torch.full((1, 5), 0.3, dtype=torch.float64), TS).value[:, :, 0],
        model(torch.full((1, 4), 0.3, dtype=torch.float64), TS).value[:, :, 0],
    )


def test_the_field_in_the_units_of_the_data_is_the_slope_of_its_solution():
    model = make_model("graph", data(2), field_factory())
    y0, h = starts(2), 1e-4
    ends = model(y0, torch.tensor([0.0, h, 2 * h], dtype=torch.float64)).value
    slope = model.vector_field(torch.tensor(0.0, dtype=torch.float64), ends[1])
    torch.testing.assert_close((ends[2] - ends[0]) / (2 * h), slope, rtol=1e-5, atol=1e-6)


def test_its_size_does_not_depend_on_the_number_of_nodes_and_no_parameter_is_idle():
    model = make_model("graph", data(2), field_factory(width=5, depth=1))
    sizes = [tuple(parameter.shape) for parameter in model.parameters()]
    assert sizes == [(5, 4), (5,), (2, 5), (2,)]
    model(starts(2), TS).value.square().sum().backward()
    assert all(bool((parameter.grad != 0).all()) for parameter in model.parameters())


def test_each_sample_has_its_own_time_at_all_its_nodes():
    field = MessagePassing(field_factory(time_dependent=True)((2,), 1), ADJACENCY).double()
    y, ts = starts(1).unflatten(1, (4, 1)), torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    together = field(ts, y)
    alone = torch.cat([field(t, y[i : i + 1]) for i, t in enumerate(ts)])
    torch.testing.assert_close(together, alone)


def test_the_field_s_gradient_is_that_of_finite_differences():
    torch.manual_seed(0)
    field = MessagePassing(field_factory(width=4, depth=1)((4,), 2).double(), mixed(ADJACENCY, Mixing.laplacian))
    weights = [parameter.detach().requires_grad_() for parameter in field.parameters()]
    names = [name for name, _ in field.named_parameters()]

    def call(y: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(field, dict(zip(names, values, strict=True)), (torch.tensor(0.0), y))

    assert torch.autograd.gradcheck(call, (starts(2).unflatten(1, (4, 2)).requires_grad_(), *weights))


@pytest.mark.parametrize(
    ("engine", "adjoint"), [("torchdiffeq", "on"), ("compiled", "off"), ("compiled", "checkpoint")]
)
def test_every_engine_and_adjoint_gives_the_gradient_of_backpropagation(
    engine: str, adjoint: str, monkeypatch: pytest.MonkeyPatch
):
    # Its steps called as they are written, without Inductor.
    monkeypatch.setattr("node_runner.engines.compiled.engine.CompiledEngine._compiles", False)
    gradients = []
    for named, name in (("torchdiffeq", "off"), (engine, adjoint)):
        torch.manual_seed(0)
        solve = differentiable(make_method("dopri5"), name, rtol=1e-9, atol=1e-9, engine=named)
        model = make_model("graph", data(1), field_factory(width=6, depth=1), solve=solve)
        model(starts(1), TS).value.square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_data_without_a_graph_are_refused():
    with pytest.raises(ConfigError, match=r"^model=graph needs a graph, and dataset=made-up gives none: use "):
        make_model("graph", spec(View.trajectories, (4,), mean=[0.0] * 4, std=[1.0] * 4), field_factory())
