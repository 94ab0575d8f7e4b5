import pytest
import torch

from node_runner.datasets.crossing import Crossing
from node_runner.views import View


def test_every_path_ends_at_minus_its_start_and_starts_lie_about_both_sides():
    part = Crossing(train=1000, spread=0.2, horizon=3.0).splits(View.trajectories).train
    assert part.ts.tolist() == [0.0, 3.0]
    assert torch.equal(part.ys[:, 1], -part.ys[:, 0])
    left, right = part.ys[::2, 0, 0], part.ys[1::2, 0, 0]
    assert (len(left), len(right)) == (500, 500)
    assert (float(left.mean()), float(right.mean())) == pytest.approx((-1, 1), abs=0.04)
    assert float(left.std()) == pytest.approx(0.2, rel=0.1)
