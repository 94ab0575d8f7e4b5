"""Classifiers: encoders, sizes, end time, and what does not fit together."""

from __future__ import annotations

import pytest
import torch

from node_runner.assemble import count_parameters
from node_runner.errors import ConfigError
from node_runner.settings import Encoder
from node_runner.views import View
from tests.models.builders import LinearField, field_factory, make_model, spec
from tests.problems import differentiable, make_method


MNIST = spec(View.labelled, (1, 28, 28), mean=0.13, std=0.31, num_classes=10)
DIGITS = spec(View.labelled, (1, 8, 8), mean=0.3, std=0.37, num_classes=10)
PLANE = spec(View.labelled, (2,), mean=[0.5, -0.5], std=[1.0, 2.0], num_classes=3)
COARSE = {"solve": differentiable(make_method("rk4", step_size=0.5), "off")}


@pytest.mark.parametrize("name", ["node", "augmented"])
@pytest.mark.parametrize(
    ("data", "field"), [(PLANE, "mlp"), (PLANE, "concatsquash"), (DIGITS, "mlp"), (DIGITS, "conv")],
    ids=["plane-mlp", "plane-concatsquash", "image-mlp", "image-conv"],
)  # fmt: skip
def test_logits_have_one_column_a_class(name: str, data, field: str):
    model = make_model(name, data, field_factory(field), **COARSE)
    output = model(torch.rand(4, *data.shape, dtype=torch.float64))
    assert output.value.shape == (4, data.num_classes)
    assert output.value.isfinite().all()
    assert len(output.solves) == 1


@pytest.mark.parametrize(("name", "field", "total"), [("node", 75_392, 208_266), ("augmented", 82_544, 215_454)])
def test_the_convolutional_model_has_the_size_of_the_ode_net_on_mnist(name: str, field: int, total: int):
    # 0.208 million: encoder 640 + 128 + 65,600 + 128 + 65,600, the field, and the head 128 + 650. Three more
    # channels widen the field, and the head to 134 + 680.
    model = make_model(name, MNIST, field_factory("conv"), **COARSE)
    assert count_parameters(model.encoder) == 132_096
    assert count_parameters(model.block.field) == field
    assert count_parameters(model) == total


@pytest.mark.parametrize(
    ("shape", "state"), [((1, 28, 28), (64, 6, 6)), ((1, 8, 8), (64, 1, 1)), ((3, 32, 32), (64, 7, 7))]
)
def test_the_convolutional_encoder_makes_the_state_that_it_announces(shape: tuple[int, ...], state: tuple[int, ...]):
    data = spec(View.labelled, shape, num_classes=10)
    model = make_model("node", data, field_factory("conv"), **COARSE)
    assert model.block.state_shape == state
    assert model.encoder(torch.rand(2, *shape, dtype=torch.float64)).shape == (2, *state)


@pytest.mark.parametrize(
    ("data", "field", "encoder"),
    [(PLANE, "mlp", Encoder.none), (DIGITS, "mlp", Encoder.mlp), (DIGITS, "conv", Encoder.conv)],
    ids=["vector", "image-mlp", "image-conv"],
)
def test_auto_means_the_encoder_that_suits_data_and_field(data, field: str, encoder: Encoder):
    kinds = []
    for chosen in (Encoder.auto, encoder):
        torch.manual_seed(0)
        kinds.append(str(make_model("node", data, field_factory(field), encoder=chosen, **COARSE)))
    assert kinds[0] == kinds[1]


@pytest.mark.parametrize(
    ("data", "field", "encoder", "why"),
    [
        (PLANE, "mlp", Encoder.conv, r"model\.encoder=conv needs images.*use model\.encoder=none or mlp"),
        (DIGITS, "mlp", Encoder.conv, r"model\.encoder=conv makes states.*use field=conv"),
        (DIGITS, "conv", Encoder.mlp, r"model\.encoder=mlp makes states.*use field=mlp"),
        (DIGITS, "mlp", Encoder.none, r"field=mlp needs a state that is a vector.*use field=conv"),
        (PLANE, "conv", Encoder.auto, r"field=conv needs a state that is an image.*use field=mlp"),
        (spec(View.labelled, (1, 5, 5), num_classes=2), "conv", Encoder.auto, r"at least 6 x 6, got \(5, 5\)"),
    ],
    ids=["conv-on-vectors", "conv-for-mlp", "mlp-for-conv", "none-for-mlp", "conv-field-on-vectors", "too-small"],
)
def test_what_does_not_fit_is_refused_with_what_to_use(data, field: str, encoder: Encoder, why: str):
    with pytest.raises(ConfigError, match=why):
        make_model("node", data, field_factory(field), encoder=encoder)


def test_an_image_may_be_the_state_itself():
    model = make_model("node", DIGITS, field_factory("conv"), encoder=Encoder.none, **COARSE)
    assert model.block.state_shape == (1, 8, 8)
    assert model(torch.rand(2, 1, 8, 8, dtype=torch.float64)).value.shape == (2, 10)


def test_the_solve_ends_at_end_time():
    # z' = z from z(0): the head sees z(0) exp(T).
    def make(shape: tuple[int, ...]) -> torch.nn.Module:
        return LinearField([[1.0, 0.0], [0.0, 1.0]])

    x = torch.randn(3, 2, dtype=torch.float64)
    for end in (1.0, 2.5):
        model = make_model("node", PLANE, make, end_time=end)
        z = (x - PLANE.mean) / PLANE.std
        expected = model.head(z * torch.exp(torch.tensor(end, dtype=torch.float64)))
        torch.testing.assert_close(model(x).value, expected, rtol=1e-6, atol=1e-6)


def test_widths_are_those_that_are_asked_for():
    model = make_model("node", DIGITS, field_factory("mlp"), encoder_width=9, state=5, **COARSE)
    assert [tuple(layer.weight.shape) for layer in model.encoder if hasattr(layer, "weight")] == [(9, 64), (5, 9)]
    assert model.block.state_shape == (5,)
