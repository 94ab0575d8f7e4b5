"""Assembly: what fits together is built, what does not is refused before any work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from node_runner.assemble import FieldFactory, assemble, choose_view, count_parameters
from node_runner.errors import ConfigError, DataError
from node_runner.fields import FIELDS
from node_runner.settings import Place, Precision
from node_runner.views import View
from tests.runs import make_run


class Offers:
    """A data set that offers some views."""

    def __init__(self, *views: View) -> None:
        self.views = views


@pytest.mark.parametrize(
    ("views", "model", "chosen"),
    [
        ((View.trajectories, View.points), "node", View.trajectories),
        ((View.trajectories, View.points), "cnf", View.points),
        ((View.points, View.labelled), "augmented", View.labelled),
        ((View.labelled, View.trajectories), "node", View.labelled),
    ],
)
def test_the_first_view_that_the_model_learns_from_is_chosen(views: tuple[View, ...], model: str, chosen: View):
    assert choose_view("made-up", Offers(*views), model) is chosen


def test_a_model_that_learns_from_no_view_on_offer_is_refused_with_those_that_do():
    with pytest.raises(ConfigError) as caught:
        choose_view("made-up", Offers(View.trajectories), "cnf")
    message = "model=cnf learns from points, and dataset=made-up offers trajectories: use model=augmented, "
    assert str(caught.value).startswith(message)
    assert "node" in str(caught.value) and " or " in str(caught.value)
    with pytest.raises(ConfigError, match=r"model=node learns from .* use model=cnf or flow_matching"):
        choose_view("made-up", Offers(View.points), "node")


@pytest.mark.parametrize("precision", list(Precision), ids=lambda precision: precision.value)
def test_data_model_and_solve_are_of_one_dtype(precision: Precision):
    experiment = assemble(make_run(device__precision=precision))
    dtype = getattr(torch, precision.value)
    assert experiment.dtype is dtype
    assert {tensor.dtype for tensor in experiment.model.state_dict().values()} == {dtype}
    assert {part.ys.dtype for _, part in experiment.splits.items()} == {dtype}
    batch = experiment.task.batches(experiment.splits.train, experiment.config.trainer, 0, lambda step: 0.0)[1](0)
    assert experiment.task.step(experiment.model, batch).loss.dtype is dtype


def test_the_same_configuration_gives_the_same_initial_weights():
    states = [assemble(make_run(seed=seed)).model.state_dict() for seed in (0, 0, 1)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not all(torch.equal(states[0][name], states[2][name]) for name in states[0])


@pytest.mark.parametrize(
    ("choices", "why"),
    [
        ({"solver": "scipy_solver"}, "adjoint=off cannot differentiate solver=scipy_solver"),
        ({"solver": "rk4", "adjoint": "seminorm"}, "adjoint=seminorm .* use adjoint=on"),
        ({"field": "conv"}, "field=conv needs a state that is an image"),
        ({"tolerance__start_rtol": 0.1}, "a schedule needs both"),
        ({"solver__min_step": 1.0, "solver__max_step": 0.1}, r"solver\.max_step: expected at least"),
    ],
    ids=["scipy-off", "seminorm-fixed", "conv-on-vectors", "half-a-schedule", "steps-crossed"],
)
def test_parts_that_do_not_fit_are_refused(choices: dict[str, Any], why: str):
    with pytest.raises(ConfigError, match=why):
        assemble(make_run(**choices))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA GPU here")
def test_a_device_that_is_not_there_is_refused_with_what_to_use():
    with pytest.raises(ConfigError, match=r"device=cuda: .*use device=cpu or device=auto"):
        assemble(make_run(device__place=Place.cuda))


def test_data_that_are_not_there_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from node_runner.datasets.parts import mnist_files

    def no_network(folder: Path, missing: list[str]) -> None:
        raise DataError(f"missing {missing[0]}")

    monkeypatch.setattr(mnist_files, "download", no_network)
    with pytest.raises(DataError, match="missing train-images"):
        assemble(make_run(dataset="mnist", dataset__root=str(tmp_path)))


def test_a_field_factory_makes_the_field_for_any_shape_and_says_what_state_it_takes():
    factory = FieldFactory(FIELDS.schema("mlp")(width=5))
    assert factory.state_ndim == 1
    assert factory((7,)).hidden[0].weight.shape == (5, 7)
    assert FieldFactory(FIELDS.schema("conv")()).state_ndim == 3


@pytest.mark.parametrize("autonomous", [True, False])
def test_a_field_is_told_the_time_where_the_law_of_the_data_depends_on_it(autonomous: bool):
    def told(field: str, **values: object) -> bool:
        return FieldFactory(FIELDS.schema(field)(**values), autonomous=autonomous)((2,)).time_dependent

    assert told("mlp") == (not autonomous)
    assert told("mlp", time_dependent=True) and not told("mlp", time_dependent=False)
    assert not told("affine")  # which cannot be


def test_the_field_of_a_reaction_in_logarithmic_time_is_told_the_time():
    small = {"dataset__train": 1, "dataset__val": 1, "dataset__test": 1, "dataset__long": 0, "dataset__times": 4}
    assert [field.time_dependent for field in assemble(make_run(dataset="robertson", **small)).fields] == [True]


def test_a_field_that_has_no_outputs_of_its_own_is_refused_where_a_model_needs_them():
    assert FieldFactory(FIELDS.schema("mlp")(width=5))((7,), 2).out.weight.shape == (2, 5)
    with pytest.raises(ConfigError, match=r"^field=conv gives as many numbers .* from 4 to 2: use field=mlp"):
        FieldFactory(FIELDS.schema("conv")())((4,), 2)


def test_frozen_parameters_do_not_count():
    layer = torch.nn.Linear(3, 2)
    layer.bias.requires_grad_(False)
    assert count_parameters(layer) == 6
