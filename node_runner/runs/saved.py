"""A run that was trained before, built again with its weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from node_runner.assemble import Experiment, assemble
from node_runner.errors import ConfigError
from node_runner.reporting.run_folder import RunFolder
from node_runner.runs.config_file import load_run
from node_runner.tasks.techniques.first_states import give_first_states
from node_runner.training import checkpoint


CHECKPOINTS = ("best", "last")

FIXED = ("model", "field", "optimizer", "schedule", "regulariser", "logger")
"""Groups whose options belong to the trained weights, or have no part in using them."""


@dataclass(frozen=True)
class Saved:
    """A trained model. step: optimiser steps that its weights have seen."""

    folder: RunFolder
    experiment: Experiment
    step: int

    @property
    def title(self) -> str:
        """For figures: what was learned by what."""
        config = self.experiment.config
        return f"{config.dataset.name} x {config.model.name}"

    @property
    def recorded(self) -> dict[str, Any]:
        """Metrics of the best weights, as result.json has them; none where the run has not ended."""
        metrics: dict[str, Any] = self.folder.read_result()["metrics"] if self.folder.result.is_file() else {}
        return metrics


def restore(folder: RunFolder, overrides: Sequence[str], which: str) -> Saved:
    """Build a run from its config.yaml and load a checkpoint into the model, which is left in eval mode.

    Args:
        folder: of the run.
        overrides: settings to change, and groups to switch.
        which: "best" or "last".

    Raises:
        ConfigError: no such checkpoint, or overrides that do not fit the weights.
    """
    for override in overrides:
        if override.split("=", 1)[0] in FIXED:
            raise ConfigError(f"{override}: the weights fit their own model; change data, solver, tolerance or device")
    experiment = assemble(load_run(folder.config, overrides))
    state = checkpoint.load(folder.checkpoints / f"{which}.pt", experiment.device)
    weights = state["model"]
    if which == "last" and state["average"] is not None:
        weights = state["average"]["model"]
    step = int(state["step"] if which == "best" else state["state"]["step"])
    if "first_states.values" in weights:  # of the trajectories that were trained on; those at hand may be others
        give_first_states(experiment.model, weights["first_states.values"])
    checkpoint.put(weights, experiment.model, str(folder.path))
    experiment.model.eval()
    return Saved(folder, experiment, step)
