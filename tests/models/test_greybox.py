"""A known equation with learned parameters, alone and with a network."""

from __future__ import annotations

import pytest
import torch

from node_runner.datasets import DATASETS
from node_runner.errors import ConfigError
from node_runner.views import DataSpec, View
from tests.models.builders import field_factory, make_model, spec


TS = torch.linspace(0, 1, 6, dtype=torch.float64)
WITH_EQUATION = ("oscillator", "lotka-volterra", "pendulum", "mass_spring")


def dataset(name: str, **settings: object):
    return DATASETS.build(DATASETS.schema(name)(times=20, horizon=1.0, long=0, **settings))


def oscillator() -> DataSpec:
    return dataset("oscillator").spec(View.trajectories)


def truth(name: str) -> dict[str, float]:
    data = dataset(name)
    return {parameter: getattr(data, parameter) for parameter in data.equation().parameters}


@pytest.mark.parametrize("name", WITH_EQUATION)
def test_with_the_true_parameters_it_is_the_true_system(name: str):
    data = dataset(name)
    model = make_model("greybox", data.spec(View.trajectories), field_factory(), start=truth(name))
    part = data.splits(View.trajectories).test
    output = model(part.ys[:, 0], part.ts)
    torch.testing.assert_close(output.value.transpose(0, 1).detach(), part.ys, rtol=1e-5, atol=1e-5)
    assert {key: float(value.detach()) for key, value in output.scalars.items()} == pytest.approx(truth(name), rel=1e-6)


@pytest.mark.parametrize("name", WITH_EQUATION)
def test_the_start_is_not_the_truth_but_leads_there(name: str):
    data = dataset(name)
    model = make_model("greybox", data.spec(View.trajectories), field_factory())
    part = data.splits(View.trajectories).train
    starts = {key: float(value.detach()) for key, value in model(part.ys[:, 0], part.ts).scalars.items()}
    assert all(abs(starts[key] / value - 1) > 0.2 for key, value in truth(name).items())
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.2, max_iter=80, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        error = (model(part.ys[:, 0], part.ts).value.transpose(0, 1) - part.ys) / part.ys.std()
        value = error.square().mean()
        value.backward()
        return value

    optimizer.step(loss)
    found = {key: float(value.detach()) for key, value in model(part.ys[:, 0], part.ts).scalars.items()}
    assert found == pytest.approx(truth(name), rel=1e-3)


def test_the_network_adds_nothing_at_first_and_all_of_it_can_learn():
    y0 = torch.randn(3, 2, dtype=torch.float64)
    alone = make_model("greybox", oscillator(), field_factory())
    both = make_model("greybox", oscillator(), field_factory(), network=True)
    assert torch.equal(both(y0, TS).value, alone(y0, TS).value)
    both(y0, TS).value.square().sum().backward()
    assert float(both.block.field.gain.grad.abs()) > 0
    assert sum(p.numel() for p in both.parameters()) > 1000
    assert len(list(alone.parameters())) == 2


def test_the_pace_is_how_fast_the_logarithm_of_a_parameter_moves():
    values = []
    for pace in (1.0, 10.0):
        model = make_model("greybox", oscillator(), field_factory(), pace=pace)
        with torch.no_grad():
            for weight in model.parameters():
                weight += 0.01
        values.append(float(model(torch.ones(1, 2, dtype=torch.float64), TS).scalars["zeta"].detach()))
    assert values == pytest.approx([0.5 * 2.718281828**0.01, 0.5 * 2.718281828**0.1], rel=1e-6)


def test_data_without_an_equation_are_refused():
    data = spec(View.trajectories, (2,), mean=[0.0, 0.0], std=[1.0, 1.0])
    with pytest.raises(ConfigError, match=r"^model=greybox needs an equation, and dataset=made-up gives none: use "):
        make_model("greybox", data, field_factory())


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ({"omega": 1.0}, r"^model.start: dataset=oscillator has no parameter 'omega': use zeta, omega_n$"),
        ({"zeta": 0.0}, r"^model.start.zeta: expected a number above 0, got 0.0$"),
    ],
)
def test_a_start_that_is_none_is_refused(start: dict[str, float], message: str):
    with pytest.raises(ConfigError, match=message):
        make_model("greybox", oscillator(), field_factory(), start=start)
