"""Flow matching as a warm start of a density: matched steps, then the likelihood."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from node_runner.batches import PointBatch
from node_runner.errors import ConfigError
from node_runner.runs.rehearsal import rehearse
from node_runner.tasks.density import Density
from node_runner.tasks.techniques.lines import MatchedLines
from node_runner.tasks.techniques.warm_start import Matched
from node_runner.views import View
from tests.models.builders import spec
from tests.runs import make_run, trainer_of


def test_the_first_steps_match_lines_and_the_later_ones_solve(tmp_path: Path):
    run = make_run(
        dataset="two_moons",
        model="cnf",
        field="concatsquash",
        solver="midpoint",
        trainer__warm_start=2,
        trainer__steps=4,
    )
    trainer, experiment, lines = trainer_of(run, tmp_path)
    assert rehearse(experiment, trainer.batch).choices
    trainer.train()
    assert [nfe > 0 for nfe in lines.of("nfe/forward")] == [False, False, True, True]
    assert len(lines.of("train/flow_matching")) == 2


def test_the_loss_is_the_objective_of_the_model_at_dequantised_grey_levels():
    class Told(nn.Module):
        def matching_loss(self, x: Tensor) -> Tensor:
            self.x = x
            return torch.tensor(3.0)

    x = torch.arange(8, dtype=torch.float64).reshape(4, 2)
    for levels in (0, 8):
        data, model = spec(View.points, (2,), levels=levels), Told()
        out = MatchedLines(Density(data, {}), data, 1, model).step(model, Matched(PointBatch(x)))
        assert (float(out.loss), out.solves) == (3.0, [])
        assert torch.equal(model.x.floor(), x)
        assert torch.equal(model.x, x) is (levels == 0)


def test_a_model_without_such_an_objective_is_refused():
    data = spec(View.points, (2,))
    with pytest.raises(ConfigError, match=r"use trainer\.warm_start=0"):
        MatchedLines(Density(data, {}), data, 1, nn.Identity())
