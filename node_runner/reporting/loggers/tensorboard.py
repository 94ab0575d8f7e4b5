"""TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter

from node_runner.reporting import LOGGERS


@LOGGERS.register("tensorboard", "scalars, figures, hparams and a dashboard layout for TensorBoard")
class TensorBoardLogger:
    """Writes event files into the run folder."""

    def __init__(self, folder: Path, step: int, /) -> None:
        self._writer = SummaryWriter(str(folder), purge_step=step or None)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def figure(self, name: str, figure: Figure, step: int) -> None:
        self._writer.add_figure(name, figure, step, close=False)

    def text(self, name: str, text: str) -> None:
        self._writer.add_text(name, text)

    def finish(self, config: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        pass

    def close(self) -> None:
        self._writer.close()
