"""The neural ODE on trajectories, plain and augmented."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from node_runner.views import View
from tests.models.builders import LinearField, field_factory, make_model, spec
from tests.problems import SmallField


TS = torch.linspace(0, 1, 6, dtype=torch.float64)
DATA = spec(View.trajectories, (2,), mean=[1.0, -2.0], std=[0.5, 3.0])
Y0 = torch.tensor([[1.2, 0.0], [0.3, -5.0], [1.0, -2.0]], dtype=torch.float64)


@pytest.mark.parametrize("name", ["node", "augmented"])
def test_predictions_have_the_shape_of_the_data_and_begin_at_the_given_state(name: str):
    output = make_model(name, DATA, field_factory())(Y0, TS)
    assert output.value.shape == (6, 3, 2)
    torch.testing.assert_close(output.value[0], Y0, rtol=0, atol=1e-14)
    assert len(output.solves) == 1
    assert output.solves[0].nfe_forward > 0
    assert output.penalties == {}


def test_the_field_sees_standardised_states_and_predictions_are_in_the_units_of_the_data():
    model = make_model("node", DATA, lambda shape: LinearField([[-1.0, 0.0], [0.0, -2.0]]))
    z0 = (Y0 - DATA.mean) / DATA.std
    rates = torch.tensor([-1.0, -2.0], dtype=torch.float64)
    expected = z0 * torch.exp(TS[:, None, None] * rates) * DATA.std + DATA.mean
    torch.testing.assert_close(model(Y0, TS).value, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("settings", [{}, {"time_dependent": True}], ids=["autonomous", "time-dependent"])
@pytest.mark.parametrize("name", ["node", "augmented"])
def test_the_vector_field_is_the_slope_of_a_prediction_where_it_starts(name: str, settings: dict[str, bool]):
    model = make_model(name, DATA, field_factory("mlp", **settings))
    start, eps = 0.6, 1e-4
    t0 = torch.full((3,), start, dtype=torch.float64)
    with torch.no_grad():
        there = model(Y0, torch.tensor([0.0, eps], dtype=torch.float64), t0).value[1]
        back = model(Y0, torch.tensor([0.0, -eps], dtype=torch.float64), t0).value[1]
        field = model.vector_field(torch.tensor(start, dtype=torch.float64), Y0)
    torch.testing.assert_close(field, (there - back) / (2 * eps), rtol=0, atol=1e-4)


def test_a_time_dependent_field_tells_starting_times_apart():
    model = make_model("node", DATA, lambda shape: SmallField(2))
    zeros, ones = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    at_zero = model(Y0, TS, zeros).value
    assert torch.equal(at_zero, model(Y0, TS).value)
    assert not torch.allclose(at_zero, model(Y0, TS, ones).value, atol=1e-3)


def test_augmentation_lets_trajectories_pass_each_other_on_a_line():
    # z' = a, a' = -pi^2 z with a(0) = 0: z(1) = -z(0), which no flow on the line can do.
    rotation = [[0.0, torch.pi], [-torch.pi, 0.0]]
    model = make_model("augmented", spec(View.trajectories, (1,)), lambda shape: LinearField(rotation), augment=1)
    y0 = torch.tensor([[1.0], [-2.0]], dtype=torch.float64)
    torch.testing.assert_close(model(y0, TS).value[-1], -y0, rtol=0, atol=1e-5)


def test_the_state_of_an_augmented_model_is_wider_by_what_is_asked_for():
    shapes: list[tuple[int, ...]] = []

    def make(shape: tuple[int, ...]) -> torch.nn.Module:
        shapes.append(shape)
        return field_factory()(shape)

    make_model("node", DATA, make)
    make_model("augmented", DATA, make)
    make_model("augmented", DATA, make, augment=7)
    assert shapes == [(2,), (5,), (9,)]


def test_standardisation_travels_with_the_model_and_is_not_trained():
    model = make_model("node", DATA, field_factory())
    assert {"mean", "std"} <= set(model.state_dict())
    assert not {"mean", "std"} & {name for name, _ in model.named_parameters()}


def test_the_whole_batch_may_start_at_the_mean():
    y0: Tensor = DATA.mean.expand(3, 2).clone()
    model = make_model("node", DATA, lambda shape: LinearField([[-1.0, 0.0], [0.0, -1.0]]))
    torch.testing.assert_close(model(y0, TS).value, y0.expand(6, 3, 2), rtol=0, atol=1e-12)
