"""Part (a) of gpu_check.py: the same training on both devices."""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from gpu_part import Part, say
from recording import mnist_missing
from torch import Tensor

from node_runner.assemble import assemble
from node_runner.config import RunConfig, compose_run
from node_runner.reporting.run_folder import RunFolder
from node_runner.runs.run import make_trainer
from node_runner.settings import Place, Precision


FIRST = 10
"""Steps that must agree closely."""


class Trace:
    """A reporter that keeps the loss and the evaluations of every step."""

    def __init__(self) -> None:
        self.loss: list[float] = []
        self.nfe: list[int] = []

    def begin(self, step: int, total: int) -> None:
        """Nothing to do."""

    def step(self, step: int) -> None:
        """Nothing to do."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        if "train/loss" in values:
            self.loss.append(values["train/loss"])
            self.nfe.append(round(values["nfe/forward"] + values["nfe/backward"]))


@contextmanager
def noise_of_the_cpu() -> Iterator[None]:
    """Within this block noise is drawn by the CPU's generator, the same for every device."""

    def drawn_there(draw: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def here(*args: Any, device: torch.device | None = None, **kwargs: Any) -> Tensor:
            like = args[0] if args and isinstance(args[0], Tensor) else None
            target = like.device if like is not None else device
            return draw(*(a.cpu() if isinstance(a, Tensor) else a for a in args), **kwargs).to(target)

        return here

    names = ("rand_like", "randn_like", "randint")
    replaced = {name: drawn_there(getattr(torch, name)) for name in names}
    with patch.multiple(torch, **replaced):
        yield


def short_run(dataset: str, model: str, options: argparse.Namespace) -> RunConfig:
    """A short training, without validation until its end."""
    steps = options.train_steps
    overrides = [
        f"dataset={dataset}", f"model={model}", f"trainer.steps={steps}", "trainer.epochs=null", "trainer.warm_start=0",
        "trainer.log_every=1", f"trainer.eval_every={steps + 1}", *options.training,
    ]  # fmt: skip
    if dataset == "mnist":
        overrides += ["dataset.train=2000", "dataset.val=100", "dataset.test=100"]
    return compose_run(overrides)


def train(config: RunConfig, device: str, precision: str) -> Trace:
    """What every step of a run brought, on a device and in a precision."""
    config = copy.deepcopy(config)
    config.device.place, config.device.precision = Place(device), Precision(precision)
    experiment = assemble(config)
    trace = Trace()
    with tempfile.TemporaryDirectory() as folder, noise_of_the_cpu():
        trainer = make_trainer(experiment, RunFolder(Path(folder)))
        trainer.reporters = [trace]
        state = trainer.train()
    if state.status != "completed":  # the trainer has caught a Ctrl-C
        raise KeyboardInterrupt
    return trace


def compare(config: RunConfig, precision: str, options: argparse.Namespace) -> dict[str, Any]:
    """The same training on the CPU and on the device."""
    here, there = (train(config, place, precision) for place in ("cpu", options.device))
    differences = [abs(b - a) / max(abs(a), 1e-12) for a, b in zip(here.loss, there.loss, strict=True)]
    first = differences[:FIRST]
    if precision == "float64":
        same = max(first) <= 1e-6 and here.nfe[:FIRST] == there.nfe[:FIRST]
    else:
        same = first[0] <= 1e-4 and abs(sum(there.nfe) / sum(here.nfe) - 1) <= 0.05
    return {
        "pair": f"{config.dataset.name} x {config.model.name}",
        "precision": precision,
        "same": same,
        "loss, step 1": here.loss[0],
        f"loss, step {options.train_steps}": here.loss[-1],
        f"largest difference, first {FIRST}": max(first),
        "largest difference, all": max(differences),
        "NFE, CPU": sum(here.nfe),
        f"NFE, {options.device}": sum(there.nfe),
        "steps with other NFE": sum(a != b for a, b in zip(here.nfe, there.nfe, strict=True)),
    }


def check_training(options: argparse.Namespace) -> Part:
    """(a)."""
    reason = mnist_missing() if any(dataset == "mnist" for dataset, _ in options.pairs) else None
    rows = []
    for dataset, model in options.pairs:
        if dataset == "mnist" and reason:
            continue
        config = short_run(dataset, model, options)
        for precision in options.precisions:
            rows.append(compare(config, precision, options))
            say(rows[-1])
    different = [f"{row['pair']} in {row['precision']}" for row in rows if not row["same"]]
    summary = f"{len(rows)} trainings of {options.train_steps} steps on the CPU and on {options.device}: " + (
        f"different: {', '.join(different)}" if different else "all the same"
    )
    if reason:
        summary += f"; mnist left out, since {reason}"
    return Part("failed" if different else "passed", f"{summary}.", rows)
