"""Spectral normalisation: limits that hold through training, and a bound that holds for the field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from node_runner.fields import FIELDS
from node_runner.fields.spectral import bounds, cap, stretch
from node_runner.settings import Activation
from tests.runs import make_run, trainer_of


def field(name: str, **settings: Any) -> nn.Module:
    torch.manual_seed(3)
    made = FIELDS.get(name)((3, 4, 4) if name == "conv" else (3,), **settings).double()
    for parameter in made.parameters():
        parameter.data.mul_(4.0)
    made.constrain()
    return made


def test_a_weight_that_stretches_too_much_is_scaled_and_others_stay():
    large, small = torch.diag(torch.tensor([3.0, 1.0])), torch.diag(torch.tensor([0.5, 0.25]))
    expected = small.clone()
    cap([large, small], 1.5)
    torch.testing.assert_close(large, torch.diag(torch.tensor([1.5, 0.5])))
    assert torch.equal(small, expected)
    assert float(bounds([large, small], 2.0)["lipschitz"]) == pytest.approx(1.5 * 0.5 * 2.0)
    cap([large], None)
    assert float(stretch(large)) == pytest.approx(1.5)


@pytest.mark.parametrize("activation", Activation)
@pytest.mark.parametrize("name", ["mlp", "concatsquash"])
def test_the_bound_holds_everywhere(name: str, activation: Activation):
    made = field(name, width=8, activation=activation, spectral_norm=1.2)
    bound = float(made.scalars()["lipschitz"])
    y = 3 * torch.randn(200, 3, dtype=torch.float64)
    t = torch.tensor(0.7, dtype=torch.float64)
    jacobians = torch.func.vmap(torch.func.jacrev(lambda x: made(t, x[None])[0]))(y)
    steepest = float(torch.linalg.matrix_norm(jacobians, ord=2).max().detach())
    assert 0 < steepest <= bound
    assert float(made.scalars()["singular_value"]) == pytest.approx(1.2, rel=1e-9)


def test_a_time_dependent_mlp_is_bounded_in_the_state_alone():
    made = field("mlp", time_dependent=True, width=8)
    plain = bounds([made.hidden[0].weight[:, :3], made.hidden[1].weight, made.out.weight], 1.0998393194)
    assert float(made.scalars()["lipschitz"]) == pytest.approx(float(plain["lipschitz"]))


@pytest.mark.parametrize("name", ["mlp", "concatsquash", "conv"])
def test_the_limit_holds_after_every_step_and_for_the_average(name: str, tmp_path: Path):
    data = "digits" if name == "conv" else "spiral"
    run = make_run(dataset=data, field=name, solver="midpoint", field__spectral_norm=0.3, optimizer__lr=0.1,
                   trainer__steps=3, trainer__average=0.5, trainer__log_every=1)  # fmt: skip
    trainer, experiment, lines = trainer_of(run, tmp_path)
    trainer.train()
    assert all(value <= 0.3 + 1e-9 for value in lines.of("field/singular_value"))
    assert len(lines.of("field/singular_value")) == 3
    (kept,) = experiment.fields
    assert float(kept.scalars()["singular_value"]) <= 0.3 + 1e-9  # the average's weights are the model's by now
