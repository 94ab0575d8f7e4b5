"""`node-run sample`: what a trained model makes, as numbers and as a picture."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from node_runner.cli.explain import shown
from node_runner.cli.figure_file import write_figure
from node_runner.cli.sample_figures import draw_images, draw_points, draw_trajectories
from node_runner.cli.saved import Saved, open_saved
from node_runner.errors import ConfigError
from node_runner.views import View


Array = NDArray[Any]

POINTS, TRAJECTORIES = 1000, 8
"""How many are made where no number is asked for."""

AT_ONCE = 5000
"""Points in one solve, so that a large number of them fits into memory."""


@dataclass(frozen=True)
class Request:
    """What the user asked for; see the options of the command."""

    count: int | None
    start: Sequence[str]
    until: float | None
    times: int
    seed: int


def sample(run: Path, overrides: Sequence[str], request: Request, which: str, out: Path | None) -> None:
    """Draw points and their log-densities from a flow or paths of a process, or predict trajectories; write numbers
    and a picture.

    Raises:
        ConfigError: no such run or checkpoint, a classifier, or a file of another kind.
        SolveFailed: a solve could not be finished.
    """
    if out is not None and out.suffix not in (".npz", ".csv"):
        raise ConfigError(f"--out {out}: expected a file ending in .npz or .csv")
    saved = open_saved(run, overrides, which)
    view = saved.experiment.spec.view
    file = out or saved.folder.path / "samples.npz"
    if view is View.labelled:
        name = saved.experiment.config.model.name
        raise ConfigError(f"{run}: model={name} learned classes, so there is nothing to draw; see `node-run evaluate`")
    if view is View.processes and request.start:
        raise ConfigError("--start is for trajectories; a model of a process draws where its paths begin: leave it out")
    if view is View.points and (request.start or request.until is not None):
        raise ConfigError("--start and --until are for trajectories, and this run learned a density")
    with torch.no_grad(), saved.experiment.tolerances.evaluation():
        torch.manual_seed(request.seed)
        if view is View.points:
            _points(saved, request, file)
        elif view is View.processes:
            _paths(saved, request, file)
        else:
            _trajectories(saved, request, file)
    print(f"wrote {shown(file)} and {shown(file.with_suffix('.png'))}", file=sys.stderr)


def _points(saved: Saved, request: Request, file: Path) -> None:
    model: Any = saved.experiment.model
    spec = saved.experiment.spec
    if not hasattr(model, "sample") or not hasattr(model, "log_prob"):
        raise ConfigError(f"model={saved.experiment.config.model.name} cannot be sampled")
    generator = torch.Generator().manual_seed(request.seed)
    count = request.count or POINTS
    sizes = [min(AT_ONCE, count - begun) for begun in range(0, count, AT_ONCE)]
    drawn = [model.sample(size, generator=generator) for size in sizes]
    points = _numpy(torch.cat(drawn))
    densities = _numpy(torch.cat([model.log_prob(part) for part in drawn]))
    labels = list(spec.labels) or [f"x{i}" for i in range(points.shape[1])]
    if file.suffix == ".csv":
        _write_csv(file, [*labels, "log_density"], np.column_stack((points, densities)))
    else:
        _write_npz(file, samples=points.reshape(count, *(spec.image or spec.shape)), log_density=densities)
    picture = draw_images(points, spec.image, spec.levels) if spec.image else draw_points(points, densities, labels)
    write_figure(picture, file.with_suffix(".png"))


def _trajectories(saved: Saved, request: Request, file: Path) -> None:
    y0 = _first_states(saved, request)
    ts, horizon = _times(saved, request)
    ys = _numpy(saved.experiment.model(y0, ts).value.transpose(0, 1))  # (N, T, D)
    _write_paths(saved, file, ts, ys, horizon)


def _paths(saved: Saved, request: Request, file: Path) -> None:
    """Paths of a process, nothing having been seen, without the noise of observations."""
    model: Any = saved.experiment.model
    ts, horizon = _times(saved, request)
    generator = torch.Generator().manual_seed(request.seed)
    drawn = model.generate(ts, request.count or TRAJECTORIES, generator=generator).value
    _write_paths(saved, file, ts, _numpy(drawn.transpose(0, 1)), horizon)


def _times(saved: Saved, request: Request) -> tuple[Tensor, float]:
    """Times (T,) that were asked for, and the time at which the test part ends."""
    experiment = saved.experiment
    horizon = float(experiment.splits.test.ts[-1] - experiment.splits.test.ts[0])
    until = horizon if request.until is None else request.until
    if until <= 0:
        raise ConfigError(f"--until {until:g}: expected a time above 0")
    ts = torch.linspace(0, until, request.times, dtype=torch.float64, device=experiment.device)
    return ts.to(experiment.dtype), horizon


def _write_paths(saved: Saved, file: Path, ts: Tensor, ys: Array, horizon: float) -> None:
    """Write states (N, T, D) at ts (T,), and draw them."""
    experiment = saved.experiment
    labels = list(experiment.spec.labels) or [f"y{i}" for i in range(ys.shape[2])]
    if file.suffix == ".csv":
        number = np.repeat(np.arange(len(ys)), len(ts))
        table = np.column_stack((number, np.tile(_numpy(ts), len(ys)), ys.reshape(-1, ys.shape[2])))
        _write_csv(file, ["trajectory", "t", *labels], table)
    else:
        _write_npz(file, ts=_numpy(ts), ys=ys)
    write_figure(draw_trajectories(_numpy(ts), ys, labels, horizon), file.with_suffix(".png"))


def _first_states(saved: Saved, request: Request) -> Tensor:
    """(N, D): as asked for, or those of the test part."""
    experiment = saved.experiment
    size = experiment.spec.shape[0]
    if not request.start:
        return experiment.splits.test.ys[: request.count or TRAJECTORIES, 0]
    rows = []
    for text in request.start:
        try:
            row = [float(part) for part in text.split(",")]
        except ValueError:
            row = []
        if len(row) != size:
            names = ",".join(experiment.spec.labels or [f"y{i}" for i in range(size)])
            raise ConfigError(f"--start {text}: expected {size} numbers separated by commas: {names}")
        rows.append(row)
    return torch.tensor(rows, dtype=experiment.dtype, device=experiment.device)


def _numpy(values: Tensor) -> Array:
    return values.double().cpu().numpy()


def _write_npz(file: Path, **arrays: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as out:
        np.savez_compressed(out, **arrays)


def _write_csv(file: Path, header: Sequence[str], table: Array) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(header)
        writer.writerows([f"{value:.9g}" for value in row] for row in table)
