"""The hidden state of a classifier over its depth."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from node_runner.assemble import assemble
from node_runner.reporting.figures import draw
from node_runner.reporting.figures.features import between
from tests.runs import make_run


def test_the_share_between_classes_is_one_where_each_is_a_point_and_nought_where_they_lie_on_one_another():
    labels = np.array([0, 0, 1, 1])
    assert between(np.array([[0.0, 1.0], [0.0, 1.0], [3.0, 0.0], [3.0, 0.0]]), labels) == pytest.approx(1.0)
    assert between(np.array([[0.0], [1.0], [0.0], [1.0]]), labels) == pytest.approx(0.0)
    # Means at -1 and 1, each class at 1 from its own: half of the variance.
    assert between(np.array([[-2.0], [0.0], [2.0], [0.0]]), labels) == pytest.approx(0.5)


@pytest.mark.parametrize("model", ["node", "augmented", "resnet"])
def test_the_states_lead_to_the_logits(model: str):
    built = assemble(make_run(dataset="two_moons", model=model, tolerance__rtol=1e-8, tolerance__atol=1e-8))
    net, x = built.model.eval(), built.splits.test.x
    with torch.no_grad():
        states = net.states(x, 5)  # type: ignore[operator]
        logits = net(x).value
        torch.testing.assert_close(net.head(states[-1]), logits, rtol=1e-5, atol=1e-6)  # type: ignore[operator]
    assert states.shape[0] == (7 if model == "resnet" else 5)  # of the twin: before six layers and after them
    torch.testing.assert_close(states[0, :, :2], (x - net.mean) / net.std)  # type: ignore[operator]


def test_titles_say_how_deep_and_how_far_apart():
    built = assemble(make_run(dataset="two_moons", model="augmented"))
    built.model.eval()
    figure = dict(draw(built.model, built.spec, built.splits, built.dataset))["features"]
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[0].startswith("0% of the depth\n") and titles[0].endswith("between classes")
    assert titles[4].startswith("100% of the depth\n")
    assert figure.axes[0].get_xlabel() == "component 1"


def test_classes_are_called_what_the_data_call_them():
    built = assemble(make_run(dataset="letters", model="node"))
    built.model.eval()
    figure = dict(draw(built.model, built.spec, built.splits, built.dataset))["features"]
    assert (
        {text.get_text() for text in figure.axes[0].texts}
        <= set(built.spec.class_names)
        == set("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    )
