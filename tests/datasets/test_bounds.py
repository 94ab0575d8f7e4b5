"""Data that cannot be computed with are refused by name, with what to do."""

from __future__ import annotations

import pytest
import torch

from node_runner.datasets.parts.bounds import check_numbers
from node_runner.errors import ConfigError
from node_runner.views import DataSpec, Splits, Trajectories, View


def test_times_that_a_precision_cannot_tell_apart_are_refused():
    part = Trajectories(1.7e9 + torch.arange(3, dtype=torch.float64), torch.zeros(2, 3, 1, dtype=torch.float64))
    spec = DataSpec("file", View.trajectories, (1,), torch.zeros(1), torch.ones(1))
    check_numbers("file", spec, Splits(part, part, part), torch.float64)
    with pytest.raises(ConfigError, match=r"times that are 1 apart are the same in device.precision=float32; use"):
        check_numbers("file", spec, Splits(part, part, part), torch.float32)
