"""Vector fields: shapes, dependence on time, sizes, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from node_runner.errors import ConfigError
from node_runner.fields import FIELDS
from node_runner.fields.activation import ACTIVATIONS, as_column
from node_runner.fields.conv import groups
from node_runner.settings import Activation


SHAPES = {1: (3,), 3: (4, 6, 5)}
"""A state for each number of axes that a field may want."""


def build(name: str, **settings: Any) -> nn.Module:
    """A field for a state that suits it."""
    make = FIELDS.get(name)
    return make(SHAPES[make.state_ndim], **settings)


def state(field_name: str, batch: int = 5) -> Tensor:
    return torch.randn(batch, *SHAPES[FIELDS.get(field_name).state_ndim])


VARIANTS = [
    *(pytest.param(name, {}, id=name) for name in FIELDS.names()),
    *(
        pytest.param(name, {"time_dependent": True}, id=f"{name}-time-dependent")
        for name in FIELDS.names()
        if any(parameter.name == "time_dependent" for parameter in FIELDS.signature(name).parameters)
    ),
]


@pytest.mark.parametrize(("name", "settings"), VARIANTS)
def test_a_field_keeps_the_shape_and_dtype_of_the_state(name: str, settings: dict[str, Any]):
    field = build(name, **settings)
    y = state(name)
    assert field(torch.tensor(0.3), y).shape == y.shape
    assert field.double()(torch.tensor(0.3), y.double()).dtype is torch.float64
    assert field(torch.tensor(0.3, dtype=torch.float32), y.double()).dtype is torch.float64


@pytest.mark.parametrize(("name", "settings"), VARIANTS)
def test_a_field_depends_on_time_if_and_only_if_it_says_so(name: str, settings: dict[str, Any]):
    field = build(name, **settings)
    y = state(name)
    same = torch.equal(field(torch.tensor(0.0), y), field(torch.tensor(0.9), y))
    assert same is not field.time_dependent


@pytest.mark.parametrize(("name", "settings"), VARIANTS)
def test_each_sample_may_have_a_time_of_its_own(name: str, settings: dict[str, Any]):
    field = build(name, **settings).double()
    y, t = state(name).double(), torch.linspace(0, 1, 5, dtype=torch.float64)
    together = field(t, y)
    alone = torch.cat([field(time, sample) for time, sample in zip(t, y.split(1), strict=True)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "settings"), VARIANTS)
def test_a_sample_does_not_feel_its_neighbours(name: str, settings: dict[str, Any]):
    field = build(name, **settings).double()
    y = state(name).double()
    changed = y.clone()
    changed[1:] += 1
    t = torch.tensor(0.4, dtype=torch.float64)
    torch.testing.assert_close(field(t, y)[0], field(t, changed)[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "settings"), VARIANTS)
def test_every_parameter_has_a_gradient(name: str, settings: dict[str, Any]):
    field = build(name, **settings)
    field(torch.tensor(0.7), state(name)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in field.parameters())


@pytest.mark.parametrize("name", FIELDS.names())
def test_a_state_of_the_wrong_kind_is_refused_with_the_field_to_use(name: str):
    make = FIELDS.get(name)
    wrong = SHAPES[3 if make.state_ndim == 1 else 1]
    with pytest.raises(ConfigError, match=rf"^field={name} needs .* use field="):
        make(wrong)


def numbers(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_an_mlp_has_the_layers_that_it_is_told_to():
    assert numbers(FIELDS.get("mlp")((2,), width=5, depth=3)) == (2 * 5 + 5) + 2 * (5 * 5 + 5) + (5 * 2 + 2)
    assert numbers(FIELDS.get("mlp")((2,), width=5, depth=1, time_dependent=True)) == (3 * 5 + 5) + (5 * 2 + 2)


@pytest.mark.parametrize("time_dependent", [False, True])
def test_an_mlp_of_a_power_is_that_of_the_state_raised_before(time_dependent: bool):
    cube, plain = (FIELDS.get("mlp")((3,), time_dependent=time_dependent, power=power) for power in (3, 1))
    plain.load_state_dict(cube.state_dict())
    t, y = torch.tensor(0.7), state("mlp")
    torch.testing.assert_close(cube(t, y), plain(t, y * y * y))


def test_the_slope_of_a_power_has_no_bound():
    with pytest.raises(ConfigError, match=r"^field\.spectral_norm .* leave out .*norm=2 or field\.power=3$"):
        FIELDS.get("mlp")((3,), power=3, spectral_norm=2.0)


@pytest.mark.parametrize("name", [name for name in FIELDS.names() if FIELDS.get(name).state_ndim == 1])
def test_a_field_of_vectors_may_have_outputs_of_its_own(name: str):
    field = FIELDS.get(name)((3,), 5)
    assert field(torch.tensor(0.7), state(name)).shape == (5, 5)


def test_a_concatsquash_layer_has_a_gate_and_a_shift():
    # linear n m + m, gate m + m, shift m.
    layers = [(2, 5), (5, 5), (5, 2)]
    expected = sum(n * m + 4 * m for n, m in layers)
    assert numbers(FIELDS.get("concatsquash")((2,), width=5, depth=2)) == expected


def test_a_concatsquash_layer_computes_the_formula_of_ffjord():
    from node_runner.fields.concatsquash import ConcatSquashLinear

    layer = ConcatSquashLinear(2, 3)
    t, x = torch.tensor([[0.7]]), torch.randn(4, 2)
    linear = x @ layer.linear.weight.T + layer.linear.bias
    gate = torch.sigmoid(0.7 * layer.gate.weight[:, 0] + layer.gate.bias)
    torch.testing.assert_close(layer(t, x), linear * gate + 0.7 * layer.shift.weight[:, 0])


def test_the_convolutional_field_of_64_channels_has_the_size_of_the_ode_net():
    # Two convolutions of 65 x 64 x 3 x 3 + 64 and three norms of 2 x 64.
    assert numbers(FIELDS.get("conv")((64, 6, 6))) == 2 * (65 * 64 * 9 + 64) + 3 * 128


@pytest.mark.parametrize("activation", list(Activation), ids=lambda activation: activation.value)
@pytest.mark.parametrize("name", [name for name in FIELDS.names() if name != "affine"])  # which has none
def test_every_activation_is_used(name: str, activation: Activation):
    torch.manual_seed(0)
    field = build(name, activation=activation)
    torch.manual_seed(0)
    other = build(name, activation=Activation.tanh if activation is not Activation.tanh else Activation.sin)
    y, t = state(name), torch.tensor(0.5)
    assert field(t, y).isfinite().all()
    assert not torch.equal(field(t, y), other(t, y))


def test_every_activation_has_its_function():
    assert set(ACTIVATIONS) == set(Activation)
    assert float(ACTIVATIONS[Activation.sin](torch.tensor(1.0))) == pytest.approx(0.8414710)


@pytest.mark.parametrize(("channels", "expected"), [(1, 1), (3, 3), (32, 32), (64, 32), (67, 1), (66, 22), (40, 20)])
def test_groups_of_a_norm_divide_the_channels(channels: int, expected: int):
    assert groups(channels) == expected


def test_a_column_of_time_has_one_row_a_sample():
    y = torch.zeros(3, 2)
    assert as_column(torch.tensor(0.5, dtype=torch.float64), y).tolist() == [[0.5]] * 3
    assert as_column(torch.tensor([0.0, 1.0, 2.0]), y).tolist() == [[0.0], [1.0], [2.0]]


def test_concatsquash_is_wider_for_images_unless_told():
    narrow, wide = FIELDS.get("concatsquash")((16,)), FIELDS.get("concatsquash")((17,))
    told = FIELDS.get("concatsquash")((17,), width=8, activation=Activation.tanh)
    found = [(field.out.linear.in_features, field.kind) for field in (narrow, wide, told)]
    assert found == [(64, Activation.tanh), (512, Activation.silu), (8, Activation.tanh)]
