"""The discrete twin: Euler's arithmetic, the size of a neural ODE, honest counts."""

from __future__ import annotations

import pytest
import torch

from node_runner.errors import ConfigError
from node_runner.models.parts.residual import Layers
from node_runner.regularisers import REGULARISERS
from node_runner.views import View
from tests.models.builders import LinearField, field_factory, make_model, spec
from tests.problems import SmallField, differentiable, make_method


DATA = spec(View.trajectories, (2,), mean=[1.0, -2.0], std=[0.5, 3.0])
LABELLED = spec(View.labelled, (2,), mean=[0.0, 0.0], std=[1.0, 1.0], num_classes=3)
TS = torch.tensor([0.0, 0.2, 0.3, 0.7], dtype=torch.float64)
Y0 = torch.tensor([[1.2, 0.0], [0.3, -5.0], [1.0, -2.0]], dtype=torch.float64)


def test_a_layer_adds_the_field_times_the_time_that_passes():
    model = make_model("resnet", DATA, lambda shape: LinearField([[-1.0, 0.0], [0.0, -2.0]]))
    z, expected = (Y0 - DATA.mean) / DATA.std, [Y0]
    for h in (0.2, 0.1, 0.4):
        z = z * torch.tensor([1 - h, 1 - 2 * h], dtype=torch.float64)
        expected.append(z * DATA.std + DATA.mean)
    torch.testing.assert_close(model(Y0, TS).value, torch.stack(expected))


@pytest.mark.parametrize("per_output", [1, 3])
def test_its_layers_are_the_steps_of_euler_s_method_also_for_fields_that_depend_on_time(per_output: int):
    field, ts = SmallField(2), torch.linspace(0.5, 1.7, 5, dtype=torch.float64)
    euler = differentiable(make_method("euler", step_size=0.3 / per_output))
    found = Layers(per_output)(field, Y0, ts)
    torch.testing.assert_close(found.ys, euler(field, Y0, ts).ys, rtol=0, atol=1e-12)
    assert found.stats.nfe_forward == euler(field, Y0, ts).stats.nfe_forward == 4 * per_output


@pytest.mark.parametrize("name", ["solver_error", "stiffness"])
def test_what_looks_at_a_solver_s_steps_is_refused_and_not_zero(name: str):
    with pytest.raises(ConfigError, match=rf"got regulariser={name}: use regulariser=\[\] or model=node"):
        make_model("resnet", DATA, field_factory(), regularisers={name: REGULARISERS.get(name)()})


def test_it_counts_every_evaluation_of_its_field():
    model = make_model("resnet", DATA, field_factory(), layers_per_output=2)
    calls = []
    model.block.field.register_forward_hook(lambda *_: calls.append(1))
    assert model(Y0, TS).solves[0].nfe_forward == len(calls) == 6
    classifier = make_model("resnet", LABELLED, field_factory(), layers=9)
    classifier.block.field.register_forward_hook(lambda *_: calls.append(1))
    assert classifier(Y0).solves[0].nfe_forward == len(calls) - 6 == 9


@pytest.mark.parametrize("data", [DATA, LABELLED], ids=["trajectories", "labelled"])
def test_it_is_as_large_as_a_neural_ode_and_has_the_same_weights_at_first(data):
    states = []
    for name in ("node", "resnet"):
        torch.manual_seed(0)
        states.append(make_model(name, data, field_factory()).state_dict())
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_more_layers_come_closer_to_the_neural_ode():
    errors = []
    for layers in (4, 8, 16):
        torch.manual_seed(0)
        node = make_model("node", LABELLED, field_factory())
        twin = make_model("resnet", LABELLED, field_factory(), layers=layers)
        twin.load_state_dict(node.state_dict())
        errors.append(float((node(Y0).value - twin(Y0).value).abs().max().detach()))
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.2)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.2)


def test_regularisers_are_summed_along_the_layers():
    kinetic = REGULARISERS.get("kinetic")()
    model = make_model("resnet", DATA, lambda shape: LinearField([[0.0, 0.0], [0.0, 0.0]], [3.0, 4.0]),
                       regularisers={"kinetic": kinetic})  # fmt: skip
    y, dy = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    speed = float(kinetic.begin(y)(torch.tensor(0.0), y, dy))
    assert float(model(Y0, TS).penalties["kinetic"].detach()) == pytest.approx(0.7 * speed)
