"""Weight decay on the field alone: that of AdamW, and nobody else's weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from node_runner.assemble import assemble
from node_runner.errors import ConfigError
from node_runner.reporting.run_folder import RunFolder
from node_runner.runs.run import make_trainer
from node_runner.training.field_weights import FieldDecay
from tests.runs import make_run


def trained(tmp_path: Path, name: str, **settings: object) -> tuple[nn.Module, list[nn.Module]]:
    run = make_run(solver="midpoint", trainer__steps=3, **settings)
    experiment = assemble(run)
    trainer = make_trainer(experiment, RunFolder(tmp_path / name))
    trainer.train()
    return experiment.model, experiment.fields


def test_it_is_adamw_where_all_parameters_are_the_field_s(tmp_path: Path):
    own, _ = trained(tmp_path, "own", trainer__field_weight_decay=0.5, optimizer__lr=0.05)
    theirs, _ = trained(tmp_path, "theirs", optimizer="adamw", optimizer__weight_decay=0.5, optimizer__lr=0.05)
    plain, _ = trained(tmp_path, "plain", optimizer__lr=0.05)
    for a, b, c in zip(own.parameters(), theirs.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)
        assert not torch.equal(a, c)


def test_encoder_and_head_do_not_decay():
    net = nn.ModuleDict({"head": nn.Linear(2, 2), "field": nn.Linear(2, 2)})
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    decay = FieldDecay.of([net["field"]], 0.5, "adam")
    assert decay is not None
    decay.shrink(0.1)
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(parameter, before[name] * (0.95 if name.startswith("field") else 1.0))
    flat = torch.cat([p.flatten() for p in net["field"].parameters()])
    assert decay.scalars()["field/weight_norm"] == pytest.approx(float(flat.norm().detach()))


def test_a_classifier_s_field_is_a_part_of_it(tmp_path: Path):
    model, fields = trained(tmp_path, "digits", dataset="digits", trainer__field_weight_decay=0.1)
    (field,) = fields
    assert 0 < len(list(field.parameters())) < len(list(model.parameters()))


def test_it_is_refused_where_it_would_mean_nothing():
    with pytest.raises(ConfigError, match="has no field"):
        FieldDecay.of([], 0.1, "adam")
    with pytest.raises(ConfigError, match="use optimizer=adam"):
        FieldDecay.of([nn.Linear(1, 1)], 0.1, "lbfgs")
    assert FieldDecay.of([], 0.0, "lbfgs") is None
