"""One run, from configuration to result: the training entry point."""

from __future__ import annotations

import logging
import math
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from node_runner.assemble import Experiment, assemble, count_parameters
from node_runner.config import RunConfig, config_hash, resolved
from node_runner.errors import ConfigError, Diverged, NodeRunnerError, SolveFailed
from node_runner.rehearsal import in_words, rehearse
from node_runner.reporting import LOGGERS
from node_runner.reporting.console import ConsoleProgress, summary
from node_runner.reporting.figures import draw
from node_runner.reporting.logger import Logger
from node_runner.reporting.run_folder import MetricsFile, RunFolder
from node_runner.runtime import environment
from node_runner.training import OPTIMIZERS, SCHEDULES
from node_runner.training.loop import Trainer


log = logging.getLogger("node_runner")


def run(config: RunConfig, path: Path, *, resume: bool = False, live: bool = True) -> dict[str, Any]:
    """Train, test, draw, and leave a run folder.

    Args:
        config: of the run.
        path: the run's folder; made if it is missing.
        resume: go on from the folder's last checkpoint, or begin again where there is none.
        live: show a progress bar where there is a terminal, and a table at the end.

    Returns:
        What stands in result.json.

    Raises:
        ConfigError: before anything is written, if the run cannot be built.
        RunError: the run could not finish; result.json says why.
    """
    folder = RunFolder(path)
    if not resume and folder.metrics.exists():
        raise ConfigError(f"{path}: holds a run already; choose another folder, or `node-run resume {path}`")
    experiment = assemble(config)
    for item in config.logger.values():
        LOGGERS.get(item.name)  # refused now if its package is not installed
    trainer = make_trainer(experiment, folder)
    engines = rehearse(experiment, trainer.batch)
    path.mkdir(parents=True, exist_ok=True)
    if resume:
        # A run that was killed before its first validation begins again.
        if (folder.checkpoints / "last.pt").exists():
            trainer.restore()
        if folder.completed() and (why := trainer.nothing_left()):
            log.info("nothing left to do: %s", why)
            return folder.read_result()
        folder.forget_after(trainer.state.step)
    else:
        folder.write_json(folder.environment, environment(experiment.device, experiment.dtype, config.seed))
    OmegaConf.save(OmegaConf.create(resolved(config)), folder.config)
    metrics = MetricsFile(folder.metrics, fresh=not resume)
    loggers = [LOGGERS.build(item, path, trainer.state.step) for item in config.logger.values()]
    for logger in loggers:
        logger.begin(resolved(config))
    progress = ConsoleProgress(live=live)
    trainer.reporters = [metrics, progress, *map(_ScalarsOnly, loggers)]
    log.info("%s", title(config, experiment))
    if engines and config.engine.name == "auto":
        log.info("%s", in_words(engines))
    error: Exception | None = None
    results: dict[str, float] = {}
    figures: list[str] = []
    try:
        try:
            trained = trainer.train()
        finally:
            trainer.tick(training=False)
            progress.close()
        status, reason = trained.status, trained.reason
        if status == "completed":
            results = test(trainer, experiment, metrics)
            figures = draw_figures(experiment, folder, loggers, trained.step, results)
    except KeyboardInterrupt:
        status, reason = "interrupted", "stopped by a second Ctrl-C; the last checkpoint is that of the last validation"
    except NodeRunnerError as failure:
        status, reason, error = ("diverged" if isinstance(failure, Diverged) else "failed"), str(failure), failure
    except Exception as failure:
        status, reason, error = "failed", f"{type(failure).__name__}: {failure}", failure
        (path / "traceback.txt").write_text(traceback.format_exc(), encoding="utf-8")
    result = make_result(experiment, trainer, status, reason, results)
    for logger in loggers:
        logger.finish(resolved(config), result)
        logger.close()
    metrics.close()
    folder.write_json(folder.result, result)
    if error is not None:
        raise error
    if live:
        summary(result, path, figures)
    return result


def make_trainer(experiment: Experiment, folder: RunFolder) -> Trainer:
    """The training loop of an experiment."""
    config = experiment.config
    return Trainer(
        model=experiment.model,
        task=experiment.task,
        splits=experiment.splits,
        optimizer=OPTIMIZERS.build(config.optimizer, experiment.model.parameters()),
        make_factor=lambda total: SCHEDULES.build(config.schedule, total),
        tolerances=experiment.tolerances,
        config=config.trainer,
        seed=config.seed,
        device=experiment.device,
        checkpoints=folder.checkpoints,
        reporters=[],
    )


def title(config: RunConfig, experiment: Experiment) -> str:
    """One line on what is run."""
    solver = config.solver.name
    if experiment.method.adaptive:
        solver += f" at rtol {config.tolerance.rtol:g}, atol {config.tolerance.atol:g}"
    return (
        f"{config.dataset.name} x {config.model.name} ({experiment.task.name}), field {config.field.name} with "
        f"{count_parameters(experiment.model):,} parameters in all, {solver}, adjoint {config.adjoint.name}, "
        f"{experiment.device.type} {str(experiment.dtype).removeprefix('torch.')}, seed {config.seed}"
    )


def test(trainer: Trainer, experiment: Experiment, metrics: MetricsFile) -> dict[str, float]:
    """Metrics of every test part, with the best weights, measured once."""
    results: dict[str, float] = {}
    for name, part in experiment.splits.items():
        if name in ("train", "val"):
            continue
        try:
            results |= {f"{name}/{key}": value for key, value in trainer.evaluate(part).items()}
        except SolveFailed as failure:
            # A field may fail beyond the region it was trained on: that is a result, and the others stand.
            log.warning("%s could not be measured: %s", name, failure)
            results[f"{name}/loss"] = math.nan
    for reporter in trainer.reporters:
        reporter.scalars(trainer.state.step, results)
    return results


def draw_figures(
    experiment: Experiment, folder: RunFolder, loggers: list[Logger], step: int, metrics: Mapping[str, float]
) -> list[str]:
    """Every figure of the run, as PNG and to the loggers; their names."""
    folder.figures.mkdir(exist_ok=True)
    names = []
    cuda = [experiment.device] if experiment.device.type == "cuda" else []
    with experiment.tolerances.evaluation(), torch.random.fork_rng(devices=cuda):
        torch.manual_seed(0)
        for name, figure in draw(experiment.model, experiment.spec, experiment.splits, experiment.dataset, metrics):
            figure.savefig(folder.figures / f"{name}.png", dpi=120)
            for logger in loggers:
                logger.figure(name, figure, step)
            names.append(name)
    return names


def make_result(
    experiment: Experiment, trainer: Trainer, status: str, reason: str, tests: dict[str, float]
) -> dict[str, Any]:
    """The content of result.json."""
    state, unbooked = trainer.state, trainer.meter.solver_sums()
    config = experiment.config
    return {
        "status": status,
        "reason": reason,
        "title": f"{config.dataset.name} x {config.model.name} x {config.solver.name}, adjoint {config.adjoint.name}",
        "choices": {
            "dataset": config.dataset.name,
            "model": config.model.name,
            "field": config.field.name,
            "solver": config.solver.name,
            "rtol": config.tolerance.rtol,
            "atol": config.tolerance.atol,
            "adjoint": config.adjoint.name,
            "engine": experiment.solve.served_by or config.engine.name,
            "device": str(experiment.device),
            "seed": config.seed,
        },
        "metrics": {**state.last, **state.best, **tests},
        "best_step": state.best_step,
        "totals": {
            "seconds": state.totals["seconds"],
            "seconds_total": state.totals["seconds_total"],
            "steps": state.step,
            "epochs": state.step / trainer.steps_per_epoch,
            # A run that stopped between two lines of metrics has not booked its last steps yet.
            "nfe_forward": state.totals["nfe_forward"] + unbooked.get("nfe/forward", 0.0),
            "nfe_backward": state.totals["nfe_backward"] + unbooked.get("nfe/backward", 0.0),
        },
        "parameters": count_parameters(experiment.model),
        "memory_source": trainer.memory.source if hasattr(trainer, "memory") else None,
        "config_hash": config_hash(config),
        "command": " ".join(sys.argv),
    }


class _ScalarsOnly:
    """A logger as a reporter of the loop."""

    def __init__(self, logger: Logger) -> None:
        self.scalars = logger.scalars

    def begin(self, step: int, total: int) -> None:
        """Nothing to do."""

    def step(self, step: int) -> None:
        """Nothing to do."""
