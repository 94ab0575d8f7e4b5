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


LAYOUT: dict[str, dict[str, tuple[str, ...]]] = {
    "Loss": {
        "loss": ("train/loss", "val/loss"),
        "accuracy": ("train/accuracy", "val/accuracy"),
        "relative error of trajectories": ("val/relative_rmse",),
        "bits per dimension": ("train/bits_per_dim", "val/bits_per_dim"),
    },
    "NFE": {
        "evaluations per optimiser step": ("nfe/forward", "nfe/backward"),
        "evaluations for a batch in validation": ("val/nfe",),
    },
    "Solver steps": {
        "forward": ("solver/accepted", "solver/rejected"),
        "backward": ("solver/accepted_backward", "solver/rejected_backward"),
    },
    "Memory": {
        "peak above the baseline, MiB": ("memory/peak_mb",),
        "saved for backward, MiB": ("memory/saved_mb",),
    },
    "Time": {
        "ms per optimiser step": ("time/step_ms",),
        "share of the step in the solve": ("time/solve_share",),
    },
    "Optimiser": {
        "learning rate": ("optim/lr",),
        "norm of the gradient": ("optim/grad_norm",),
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
        self._seen: set[str] = set()
        self._laid_out = False

    def begin(self, config: Mapping[str, Any]) -> None:
        """Write the configuration as text."""
        self.text("config", f"```yaml\n{OmegaConf.to_yaml(OmegaConf.create(dict(config)))}```")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write each value as a point of its curve. Not the epoch: a straight line, and the first in the alphabet."""
        points = [Summary.Value(tag=name, simple_value=value) for name, value in values.items() if name != "epoch"]
        self._add(Summary(value=points), step)  # one record for all of them: add_scalar would queue one for each
        self._seen.update(values)
        if "val/loss" in values:  # by now every scalar of the run has come
            self._lay_out()

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
        self._lay_out()
        step = int(result["totals"]["steps"])
        for summary in summaries(config, result):
            self._add(summary, None)
        for name, value in results(result).items():
            self._writer.add_scalar(tag(name), value, step)
        self.text("result", _report(result))

    def close(self) -> None:
        """Write out what is held back, and close the file."""
        self._writer.close()

    def _lay_out(self) -> None:
        """Write the layout of Custom Scalars, once, without the charts that would stay empty."""
        if self._seen and not self._laid_out:
            self._writer.add_custom_scalars(layout(self._seen))
            self._laid_out = True

    def _add(self, summary: Summary, step: int | None) -> None:
        self._writer._get_file_writer().add_summary(summary, step)


def layout(seen: set[str]) -> dict[str, dict[str, list[Any]]]:
    """LAYOUT for a run with the scalars `seen`, as add_custom_scalars wants it."""
    chosen: dict[str, dict[str, list[Any]]] = {}
    for category, charts in LAYOUT.items():
        for chart, names in charts.items():
            if seen.intersection(names):
                # TensorBoard reads names as regular expressions that need only fit at the beginning.
                exact = [f"^{name}$" for name in names]
                chosen.setdefault(category, {})[chart] = ["Multiline", exact]
    return chosen


def _report(result: Mapping[str, Any]) -> str:
    """The result as a markdown table."""
    head = f"**{result['title']}**: {result['status']} ({result['reason']})"
    rows = [f"| {name} | {value:.6g} |" for name, value in result["metrics"].items() if value is not None]
    return "\n".join([head, "", "| metric | value |", "| --- | ---: |", *rows, "", f"`{result['command']}`"])
