"""TensorBoard."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from omegaconf import OmegaConf
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter

from node_runner.reporting import LOGGERS
from node_runner.reporting.event_files import forget_after
from node_runner.reporting.hparams import results, summaries, tag


def _lines(*names: str) -> list[str | list[str]]:
    """One chart of several scalars. TensorBoard reads names as regular expressions that need only begin to fit."""
    return ["Multiline", [f"^{name}$" for name in names]]


LAYOUT = {
    "Loss": {
        "loss": _lines("train/loss", "val/loss"),
        "accuracy": _lines("train/accuracy", "val/accuracy"),
        "error of trajectories": _lines("val/mse", "val/relative_rmse"),
        "bits per dimension": _lines("train/bits_per_dim", "val/bits_per_dim"),
    },
    "NFE": {
        "evaluations per optimiser step": _lines("nfe/forward", "nfe/backward"),
        "evaluations per solve in validation": _lines("val/nfe"),
    },
    "Solver steps": {
        "forward": _lines("solver/accepted", "solver/rejected"),
        "backward": _lines("solver/accepted_backward", "solver/rejected_backward"),
    },
    "Memory": {
        "peak above the baseline, MiB": _lines("memory/peak_mb"),
        "saved for backward, MiB": _lines("memory/saved_mb"),
    },
    "Time": {
        "ms per optimiser step": _lines("time/step_ms"),
        "share of the step in the solve": _lines("time/solve_share"),
    },
    "Optimiser": {
        "learning rate": _lines("optim/lr"),
        "norm of the gradient": _lines("optim/grad_norm"),
    },
}
"""The Custom Scalars dashboard: categories, charts, and the scalars of each chart."""

ONCE = ("_hparams_/", "final/", "config/", "result/", "custom_scalars__config__")
"""Tags, by how they begin, that belong to a run as a whole."""


@LOGGERS.register("tensorboard", "scalars, figures, hparams and a dashboard layout for TensorBoard")
class TensorBoardLogger:
    """Writes event files into the run folder.

    Args:
        folder: of the run.
        step: at which the run begins, above 0 for one that is resumed; what an earlier session wrote
            after it is dropped.
    """

    def __init__(self, folder: Path, step: int, /) -> None:
        forget_after(folder, step, ONCE)
        self._writer = SummaryWriter(str(folder))

    def begin(self, config: Mapping[str, Any]) -> None:
        """Write the configuration as text, and the layout of Custom Scalars."""
        self.text("config", f"```yaml\n{OmegaConf.to_yaml(OmegaConf.create(dict(config)))}```")
        self._writer.add_custom_scalars(LAYOUT)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write each value as a point of its curve."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def figure(self, name: str, figure: Figure, step: int) -> None:
        """Write the figure as an image."""
        # Not add_figure: that imports pyplot, which changes the settings of the whole process.
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=120)
        png = buffer.getvalue()
        width, height = (int.from_bytes(png[at : at + 4], "big") for at in (16, 20))  # of its first chunk, IHDR
        image = Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=png)
        self._add(Summary(value=[Summary.Value(tag=f"figures/{name}", image=image)]), step)

    def text(self, name: str, text: str) -> None:
        """Write markdown to the Text dashboard."""
        self._writer.add_text(name, text)

    def finish(self, config: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """Make the run a row of the HParams table, however it ended."""
        step = int(result["totals"]["steps"])
        for summary in summaries(config, result):
            self._add(summary, None)
        for name, value in results(result).items():
            self._writer.add_scalar(tag(name), value, step)
        self.text("result", _report(result))

    def close(self) -> None:
        """Write out what is held back, and close the file."""
        self._writer.close()

    def _add(self, summary: Summary, step: int | None) -> None:
        self._writer._get_file_writer().add_summary(summary, step)


def _report(result: Mapping[str, Any]) -> str:
    """The result as a markdown table."""
    head = f"**{result['title']}**: {result['status']} ({result['reason']})"
    rows = [f"| {name} | {value:.6g} |" for name, value in result["metrics"].items() if value is not None]
    return "\n".join([head, "", "| metric | value |", "| --- | ---: |", *rows, "", f"`{result['command']}`"])
