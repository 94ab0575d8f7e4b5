"""Adds the regularisers' integrals to a loss."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from node_runner.types import ModelOutput, Regulariser


def penalised(
    loss: Tensor, output: ModelOutput, regularisers: Mapping[str, Regulariser]
) -> tuple[Tensor, dict[str, Tensor]]:
    """(loss + sum of weight * integral, {"regulariser/NAME": integral})."""
    for name, integral in output.penalties.items():
        loss = loss + regularisers[name].weight * integral
    return loss, {f"regulariser/{name}": integral.detach() for name, integral in output.penalties.items()}
