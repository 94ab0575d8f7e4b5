"""Which engine will serve a run: asked before it starts, so that a refusal costs nothing."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch

from node_runner.assemble import Experiment
from node_runner.runtime import default_threads
from node_runner.solving import Choice


class Rehearsal(NamedTuple):
    """choices: for the solves of a training batch. work: what the engines make before their first solves."""

    choices: list[Choice]
    work: list[Callable[[], object]]

    def prepare(self) -> None:
        """Compile what is to be compiled, side by side."""
        with ThreadPoolExecutor(default_threads()) as pool:
            for done in [pool.submit(make) for make in self.work]:
                done.result()

    def in_words(self) -> str:
        """One line on the engines that were chosen, and why faster ones were not."""
        words = []
        for engine, *refused in dict.fromkeys((c.engine, *c.refused.values()) for c in self.choices):
            words.append(f"engine {engine}" + (f" ({'; '.join(refused)})" if refused else ""))
        return ", ".join(words)


def rehearse(experiment: Experiment, batch: Callable[[int], Any], steps: int = 0) -> Rehearsal:
    """A training batch through the task, and every evaluation, with solves that only say who would serve them.

    Draws from no generator, changes nothing, and takes about as long as the model without its solves.

    Args:
        experiment: of the run.
        batch: the training batch of each step.
        steps: of the training; those of them that solve decide whether compiling pays.

    Raises:
        ConfigError: the configured engine cannot serve this field, with the reason.
    """
    experiment.solve.expect(max(0, steps - experiment.config.trainer.warm_start))
    model, task, config = experiment.model, experiment.task, experiment.config.trainer
    training = model.training
    devices = [experiment.device] if experiment.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), experiment.solve.rehearsal() as choices:
        model.train()
        task.step(model, batch(config.warm_start))  # the first that solves
        served = list(choices)
        # Else there is nothing to find out: the engine of the training solves serves those of evaluation too.
        if not served or any(choice.work is not None for choice in served):
            model.eval()
            for name, part in experiment.splits.items():
                if name != "train":
                    task.evaluate(model, part, config.eval_batch_size)
    model.train(training)
    served = served or list(choices)  # a model that trains without a solve evaluates with one
    return Rehearsal(served, list(dict.fromkeys(choice.work for choice in choices if choice.work is not None)))
