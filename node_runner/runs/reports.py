"""Who hears of a run: metrics.jsonl, the terminal, and the configured loggers."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from node_runner.config import RunConfig, resolved
from node_runner.reporting import LOGGERS
from node_runner.reporting.console import ConsoleProgress
from node_runner.reporting.logger import Logger
from node_runner.reporting.run_folder import MetricsFile, RunFolder
from node_runner.training.reporter import Reporter


class Reports:
    """Opens all that hear of a run, and closes them with its result.

    Args:
        folder: of the run.
        config: says which loggers.
        step: at which the run begins, or goes on.
        fresh: a new run, which must find no metrics.jsonl.
        live: draw a progress bar where there is a terminal.

    Attributes:
        reporters: what the training loop tells of its progress.
    """

    def __init__(self, folder: RunFolder, config: RunConfig, step: int, *, fresh: bool, live: bool) -> None:
        self._config = resolved(config)
        self._metrics = MetricsFile(folder.metrics, fresh=fresh)
        self._progress = ConsoleProgress(live=live)
        self._loggers = [LOGGERS.build(item, folder.path, step) for item in config.logger.values()]
        for logger in self._loggers:
            logger.begin(self._config)
        self.reporters: list[Reporter] = [self._metrics, self._progress, *map(_ScalarsOnly, self._loggers)]

    def end_progress(self) -> None:
        """Training is over: take the bar away."""
        self._progress.close()

    def figure(self, name: str, figure: Figure, step: int) -> None:
        """Show a figure to the loggers."""
        for logger in self._loggers:
            logger.figure(name, figure, step)

    def close(self, result: dict[str, Any]) -> None:
        """The run has ended with this result."""
        self.end_progress()
        for logger in self._loggers:
            logger.finish(self._config, result)
            logger.close()
        self._metrics.close()


class _ScalarsOnly:
    """A logger as a reporter of the loop."""

    def __init__(self, logger: Logger) -> None:
        self.scalars = logger.scalars

    def begin(self, step: int, total: int) -> None:
        """Nothing to do."""

    def step(self, step: int) -> None:
        """Nothing to do."""
