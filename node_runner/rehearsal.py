"""Which engine will serve a run: asked before it starts, so that a refusal costs nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from node_runner.assemble import Experiment
from node_runner.solving import Choice


def rehearse(experiment: Experiment, batch: Callable[[int], Any]) -> list[Choice]:
    """One training batch through the task with solves that only say who would serve them.

    Draws from no generator, changes nothing, and takes about as long as the model without its solves.

    Args:
        experiment: of the run.
        batch: the training batch of each step.

    Raises:
        ConfigError: the configured engine cannot serve this field, with the reason.
    """
    training = experiment.model.training
    devices = [experiment.device] if experiment.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), experiment.solve.rehearsal() as choices:
        experiment.model.train()
        experiment.task.step(experiment.model, batch(0))
    experiment.model.train(training)
    return choices


def in_words(choices: list[Choice]) -> str:
    """One line on the engines that were chosen, and why faster ones were not."""
    words = []
    for choice in dict.fromkeys((choice.engine, *choice.refused.values()) for choice in choices):
        engine, *refused = choice
        words.append(f"engine {engine}" + (f" ({'; '.join(refused)})" if refused else ""))
    return ", ".join(words)
