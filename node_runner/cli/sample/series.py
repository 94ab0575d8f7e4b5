"""`node-run sample` of a model of irregular series."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from node_runner.cli.arrays import numpy
from node_runner.cli.figure_file import write_figure
from node_runner.cli.sample.figures import draw_trajectories
from node_runner.cli.sample.files import one_row_a_time, write_csv, write_npz
from node_runner.cli.sample.interpolation import STEPS, draw_series, interpolate_series
from node_runner.reporting.figures.series import smooth
from node_runner.runs.saved import Saved
from node_runner.tasks.series import series_batch
from node_runner.views import Series


DRAWS = 8
"""Of a posterior, for each series."""


def continued_series(saved: Saved, count: int, seed: int, file: Path) -> None:
    """Test series as the model sees and continues them, and draws of where it has a posterior."""
    model: Any = saved.experiment.model
    part = saved.experiment.splits.test
    batch = series_batch(part, part.rows(count))
    ts, seen = numpy(batch.ts.t()), batch.seen.transpose(0, 1).cpu().numpy()
    ys = numpy(model(*batch[:3]).value.transpose(0, 1))  # (N, T, D)
    spec = saved.experiment.spec
    labels = spec.names("y", ys.shape[2])
    if file.suffix == ".csv":
        write_csv(file, ["series", "t", *labels], one_row_a_time(ts, ys))
    else:
        observed = np.where(seen, numpy(batch.values.transpose(0, 1)), np.nan)
        drawn = {}
        if hasattr(model, "imagine"):
            generator = torch.Generator().manual_seed(seed)
            drawn["draws"] = numpy(model.imagine(*batch[:3], DRAWS, generator=generator).transpose(1, 2))
        write_npz(file, ts=ts, ys=ys, observed=observed, **drawn)
    lines = smooth(model, batch, seed)
    if lines is not None:
        ts, ys = lines.ts, lines.learned
    figure = draw_trajectories(ts, ys, labels, spec.clock, part.last_seen, saved.title, "nothing is seen from here on")
    write_figure(figure, file.with_suffix(".png"))


def between_series(saved: Saved, rows: Tensor, file: Path) -> None:
    """Series that lie between the test series `rows` (2 N,), N starts and N ends, in a latent space."""
    spec, test = saved.experiment.spec, saved.experiment.splits.test
    rows = rows.to(test.device)
    ts = test.ts if test.ts.dim() == 1 else test.ts[rows]
    some = Series(ts, test.ys[rows], test.seen[rows], test.known[rows])
    paths = numpy(interpolate_series(saved.experiment.model, some, STEPS))
    times, labels = numpy(test.grid), spec.names("y", paths.shape[3])
    if file.suffix == ".csv":
        pair, share, time = np.meshgrid(np.arange(paths.shape[1]), np.linspace(0, 1, STEPS), times, indexing="ij")
        states = paths.transpose(1, 0, 2, 3).reshape(-1, paths.shape[3])
        table = np.column_stack((pair.ravel(), share.ravel(), time.ravel(), states))
        write_csv(file, ["pair", "share", "t", *labels], table)
    else:
        write_npz(file, ts=times, paths=paths)
    write_figure(draw_series(paths, times, labels, spec.clock, spec.dataset), file.with_suffix(".png"))
