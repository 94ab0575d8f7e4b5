"""A physics-informed loss: predicted trajectories are to keep the energy that the true system keeps."""

from __future__ import annotations

import torch
from torch import nn

from node_runner.batches import TrajectoryBatch
from node_runner.errors import ConfigError
from node_runner.learning import ModelOutput, StepOutput, Task
from node_runner.tasks.techniques.around import Around
from node_runner.views import DataSpec, View


class Conservation(Around):
    """A task on trajectories with a penalty on the drift of their energy.

    The penalty is the mean over times and trajectories of (E(t) - E(0))^2, E(0) being the energy of the first
    predicted state, in units of the batch's mean squared energy, or as it is where that
    is 0, where all rests at no energy. Its root is the scalar "conservation".

    Args:
        task: what is trained otherwise.
        spec: of the data, which say what is conserved.
        weight: of the penalty in the loss.

    Raises:
        ConfigError: data that conserve nothing, or nothing that is known.

    Source: Greydanus, Dzamba, Yosinski, Hamiltonian Neural Networks (2019), measure this drift; as a soft constraint
    Raissi, Perdikaris, Karniadakis, Physics-informed neural networks (2019).
    """

    def __init__(self, task: Task, spec: DataSpec, weight: float) -> None:
        if spec.view is not View.trajectories or spec.energy is None:
            raise ConfigError(
                f"trainer.conservation={weight:g} needs trajectories whose energy is known to be conserved, and "
                f"dataset={spec.dataset} gives none: use dataset=pendulum or mass_spring, or trainer.conservation=0"
            )
        super().__init__(task)
        self.energy, self.weight = spec.energy, weight

    def step(self, model: nn.Module, batch: TrajectoryBatch) -> StepOutput:
        """Loss and scalars of one batch."""
        outputs: list[ModelOutput] = []
        listening = model.register_forward_hook(lambda module, inputs, output: outputs.append(output))
        try:
            out = self.task.step(model, batch)
        finally:
            listening.remove()
        energy = self.energy(outputs[-1].value)
        unit = energy[0].detach().pow(2).mean()
        drift = (energy[1:] - energy[0]).pow(2).mean() / torch.where(unit > 0, unit, 1)
        scalars = {**out.scalars, "conservation": drift.detach().sqrt()}
        return StepOutput(out.loss + self.weight * drift, scalars, out.solves)
