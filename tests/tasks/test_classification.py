"""Classification: cross-entropy and accuracy by hand."""

from __future__ import annotations

import math

import pytest
import torch

from node_runner.batches import LabelledBatch
from node_runner.settings import TrainerConfig
from node_runner.tasks.classification import Classification
from node_runner.views import Labelled, View
from tests.models.builders import spec
from tests.tasks.models import Logits


# Logits (0, log 3): the second class has probability 3/4.
X = torch.tensor([[0.0, math.log(3)], [0.0, math.log(3)], [math.log(3), 0.0]], dtype=torch.float64)
Y = torch.tensor([1, 0, 0])
LOSS = -(math.log(3 / 4) + math.log(1 / 4) + math.log(3 / 4)) / 3


class Penalty:
    weight = 2.0


def task(**regularisers: Penalty) -> Classification:
    return Classification(spec(View.labelled, (2,), num_classes=2), regularisers)


def test_loss_and_accuracy_of_a_batch():
    output = task().step(Logits(), LabelledBatch(X, Y))
    assert float(output.loss.detach()) == pytest.approx(LOSS)
    assert float(output.scalars["loss"]) == pytest.approx(LOSS)
    assert float(output.scalars["accuracy"]) == pytest.approx(2 / 3)
    assert not output.scalars["loss"].requires_grad


def test_penalties_are_added_by_their_weight():
    output = task(kinetic=Penalty()).step(Logits({"kinetic": 0.5}), LabelledBatch(X, Y))
    assert float(output.loss.detach()) == pytest.approx(LOSS + 1.0)
    assert float(output.scalars["loss"]) == pytest.approx(LOSS)
    assert float(output.scalars["regulariser/kinetic"]) == 0.5


@pytest.mark.parametrize(("batch_size", "batches"), [(1, [1, 1, 1]), (2, [2, 1]), (10, [3])])
def test_evaluation_measures_the_same_in_parts_as_in_one(batch_size: int, batches: list[int]):
    model = Logits()
    metrics = task().evaluate(model, Labelled(X, Y), batch_size)
    assert model.batches == batches
    nfe = sum(5 + i for i in range(len(batches))) / len(batches)
    assert metrics == pytest.approx({"loss": LOSS, "accuracy": 2 / 3, "nfe": nfe})


def test_batches_hold_examples_with_their_own_labels_each_once_an_epoch():
    x = torch.arange(10.0)[:, None]
    steps, batch = task().batches(Labelled(x, torch.arange(10)), TrainerConfig(batch_size=4), 0, lambda step: 0.0)
    assert steps == 3
    seen = []
    for step in range(3):
        drawn = batch(step)
        assert drawn.x[:, 0].tolist() == drawn.y.tolist()
        seen += drawn.y.tolist()
    assert sorted(seen) == list(range(10))
