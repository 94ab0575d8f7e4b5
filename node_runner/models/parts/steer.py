"""STEER: a random end time regularises a solve."""

from __future__ import annotations

import torch
from torch import Tensor

from node_runner.errors import ConfigError


def check_steer(steer: float, end_time: float) -> None:
    """Refuse an interval of end times that reaches back to the start.

    Raises:
        ConfigError: steer is not below end_time.
    """
    if steer >= end_time:
        raise ConfigError(
            f"model.steer={steer:g}: expected less than model.end_time={end_time:g}, so that every solve goes forward; "
            f"use model.steer={end_time / 2:g} or less"
        )


def steered(times: Tensor, steer: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Times [0, T] with T drawn uniformly from (T - steer, T + steer), and the scalar "end_time".

    Unchanged and without a scalar where steer is 0.

    Source: Ghosh et al., STEER: Simple Temporal Regularization For Neural ODEs (2020).
    """
    if not steer:
        return times, {}
    end = times[-1] + steer * (2 * torch.rand((), dtype=times.dtype, device=times.device) - 1)
    return torch.stack((times[0], end)), {"end_time": end}
