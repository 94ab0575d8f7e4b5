"""What a training step minimises: the loss of the task or of the model, and the regularisers' integrals."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from node_runner.learning import ModelOutput, Regulariser


def penalised(
    loss: Callable[[], Tensor], output: ModelOutput, regularisers: Mapping[str, Regulariser]
) -> tuple[Tensor, dict[str, Tensor]]:
    """(loss + sum of weight * integral, {"loss", "regulariser/NAME", "model/NAME"}).

    Args:
        loss: the task's; not asked for where the model has an objective of its own.
        output: of the model.
        regularisers: by name.
    """
    plain = loss() if output.objective is None else output.objective
    total = plain
    for name, integral in output.penalties.items():
        total = total + regularisers[name].weight * integral
    scalars = {"loss": plain.detach()}
    scalars |= {f"regulariser/{name}": integral.detach() for name, integral in output.penalties.items()}
    scalars |= {f"model/{name}": value.detach() for name, value in output.scalars.items()}
    return total, scalars
