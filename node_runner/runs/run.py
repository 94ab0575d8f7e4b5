"""One run, from configuration to result: the training entry point."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from node_runner.assemble import Experiment, assemble
from node_runner.config import RunConfig, resolved
from node_runner.errors import ConfigError, Diverged, NodeRunnerError
from node_runner.reporting import LOGGERS
from node_runner.reporting.console import summary
from node_runner.reporting.figures import draw
from node_runner.reporting.lock import locked
from node_runner.reporting.run_folder import RunFolder
from node_runner.runs.accurate import accurate_solve
from node_runner.runs.rehearsal import Rehearsal, rehearse
from node_runner.runs.reports import Reports
from node_runner.runs.result import Ending, make_result, title
from node_runner.runs.trust import PART
from node_runner.runtime import environment
from node_runner.stiffness import Stiffness
from node_runner.training import OPTIMIZERS, SCHEDULES
from node_runner.training.field_weights import FieldDecay
from node_runner.training.loop import Trainer
from node_runner.training.measuring import measured


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
        ConfigError: before anything is written, if the run cannot be built or another process is at it.
        RunError: the run could not finish; result.json says why.
    """
    folder = RunFolder(path)
    refuse_if_taken(folder, resume)
    experiment = assemble(config)
    for item in config.logger.values():
        LOGGERS.get(item.name)  # refused now if its package is not installed
    trainer = make_trainer(experiment, folder)
    rehearsal = rehearse(experiment, trainer.batch, trainer.total)
    with locked(path):
        refuse_if_taken(folder, resume)  # by a process that began and ended meanwhile
        if resume and go_back(trainer, folder):
            return folder.read_result()
        if not resume:
            folder.write_json(folder.environment, environment(experiment.device, experiment.dtype, config.seed))
        OmegaConf.save(OmegaConf.create(resolved(config)), folder.config)
        reports = Reports(folder, config, trainer.state.step, fresh=not resume, live=live)
        trainer.reporters = reports.reporters
        log.info("%s", title(experiment))
        if rehearsal.choices and config.engine.name == "auto":
            log.info("%s", rehearsal.in_words())
        ending = carry_out(trainer, experiment, folder, reports, rehearsal)
        result = make_result(experiment, trainer, ending)
        reports.close(result)
        folder.write_json(folder.result, result)
    if ending.error is not None:
        raise ending.error
    if live:
        summary(result, path, ending.figures)
    return result


def refuse_if_taken(folder: RunFolder, resume: bool) -> None:
    """See that a new run does not write over an old one.

    Raises:
        ConfigError: it would.
    """
    if not resume and folder.metrics.exists():
        raise ConfigError(
            f"{folder.path}: holds a run already; choose another folder, or `node-run resume {folder.path}`"
        )


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
        decay=FieldDecay.of(experiment.fields, config.trainer.field_weight_decay, config.optimizer.name),
        stiffness=Stiffness(experiment.solve),
    )


def go_back(trainer: Trainer, folder: RunFolder) -> bool:
    """Take up a run at its last checkpoint; true where it is complete and there is nothing left to do."""
    # A run that was killed before its first validation begins again.
    if (folder.checkpoints / "last.pt").exists():
        trainer.restore()
    if folder.completed() and (why := trainer.nothing_left()):
        log.info("nothing left to do: %s", why)
        return True
    folder.forget_after(trainer.state.step)
    return False


def carry_out(
    trainer: Trainer, experiment: Experiment, folder: RunFolder, reports: Reports, rehearsal: Rehearsal
) -> Ending:
    """Compile, train, test and draw; whatever comes in between is the ending."""
    ending = Ending("failed", "")
    try:
        try:
            rehearsal.prepare()
            trained = trainer.train()
        finally:
            trainer.tick(training=False)
            reports.end_progress()
        ending.status, ending.reason = trained.status, trained.reason
        if trained.status == "completed":
            ending.tests = test(trainer, experiment)

            def show(name: str, figure: Figure) -> None:
                reports.figure(name, figure, trained.step)

            ending.figures = draw_figures(experiment, folder, ending.tests, show)
    except KeyboardInterrupt:
        ending.status = "interrupted"
        ending.reason = "stopped by a second Ctrl-C; the last checkpoint is that of the last validation"
    except NodeRunnerError as failure:
        ending.status = "diverged" if isinstance(failure, Diverged) else "failed"
        ending.reason, ending.error = str(failure), failure
    except Exception as failure:
        ending.status, ending.reason, ending.error = "failed", f"{type(failure).__name__}: {failure}", failure
        (folder.path / "traceback.txt").write_text(traceback.format_exc(), encoding="utf-8")
    return ending


def test(trainer: Trainer, experiment: Experiment) -> dict[str, float]:
    """Metrics of every test part, with the best weights, measured once; of the validation part, solved accurately."""
    results = measured(trainer, experiment.splits.tests)
    accurate = accurate_solve(experiment) if experiment.config.trainer.check_solver else None
    if accurate is not None:
        with experiment.solve.instead(accurate):
            results |= measured(trainer, {PART: experiment.splits.val})
    trainer.report(results)
    return results


def draw_figures(
    experiment: Experiment,
    folder: RunFolder,
    metrics: Mapping[str, float],
    show: Callable[[str, Figure], None] | None = None,
) -> list[str]:
    """Every figure of the run, as files of the formats that it asks for and to `show`; their names."""
    folder.figures.mkdir(exist_ok=True)
    names = []
    cuda = [experiment.device] if experiment.device.type == "cuda" else []
    with experiment.tolerances.evaluation(), torch.random.fork_rng(devices=cuda):
        torch.manual_seed(0)
        for name, figure in draw(experiment.model, experiment.spec, experiment.splits, experiment.dataset, metrics):
            for kind in experiment.config.figures:
                figure.savefig(folder.figures / f"{name}.{kind.value}", dpi=120)
            if show is not None:
                show(name, figure)
            names.append(name)
    return names
