"""`node-run sample`: what a trained model makes, as numbers and as a picture."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from node_runner.cli.arrays import Array, numpy
from node_runner.cli.explain import shown
from node_runner.cli.figure_file import write_figure
from node_runner.cli.sample import animation
from node_runner.cli.sample.figures import draw_images, draw_points, draw_trajectories
from node_runner.cli.sample.files import one_row_a_time, write_csv, write_npz
from node_runner.cli.sample.interpolation import (
    FINE,
    PAIRS,
    STEPS,
    can_interpolate,
    draw_interpolations,
    interpolate,
)
from node_runner.cli.sample.series import between_series, continued_series
from node_runner.cli.saved import open_saved
from node_runner.errors import ConfigError
from node_runner.runs.saved import Saved
from node_runner.views import View


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
    animate: bool = False
    interpolate: bool = False


def sample(run: Path, overrides: Sequence[str], request: Request, which: str, out: Path | None) -> None:
    """Draw points from a flow or paths of a process, or predict trajectories or series; write numbers and a picture.

    Raises:
        ConfigError: no such run or checkpoint, a classifier, a file of another kind, or a picture of what is not there.
        SolveFailed: a solve could not be finished.
    """
    if out is not None and out.suffix not in (".npz", ".csv"):
        raise ConfigError(f"--out {out}: expected a file ending in .npz or .csv")
    saved = open_saved(run, overrides, which)
    view = saved.experiment.spec.view
    file = out or saved.folder.path / "samples.npz"
    if view in (View.labelled, View.paths):
        name = saved.experiment.config.model.name
        raise ConfigError(f"{run}: model={name} learned classes, so there is nothing to draw; see `node-run evaluate`")
    _refuse(saved, request)
    with torch.no_grad(), saved.experiment.tolerances.evaluation():
        torch.manual_seed(request.seed)
        if view is View.series and request.interpolate:
            between_series(saved, pairs_of(saved, request), file)
        elif view is View.series:
            continued_series(saved, request.count or TRAJECTORIES, request.seed, file)
        elif request.interpolate:
            _between(saved, request, file)
        elif view is View.points:
            _points(saved, request, file)
        elif view is View.processes:
            _paths(saved, request, file)
        else:
            _trajectories(saved, request, file)
    written = [file, file.with_suffix(".png"), *([file.with_suffix(".gif")] if request.animate else [])]
    print(f"wrote {', '.join(str(shown(each)) for each in written)}", file=sys.stderr)


def _refuse(saved: Saved, request: Request) -> None:
    """Refuse options that do not suit what the run learned.

    Raises:
        ConfigError: the option, and what it is for.
    """
    model, spec = saved.experiment.model, saved.experiment.spec
    name = saved.experiment.config.model.name
    if spec.view is View.processes and request.start:
        raise ConfigError("--start is for trajectories; a model of a process draws where its paths begin: leave it out")
    if spec.view in (View.points, View.series) and (request.start or request.until is not None):
        learned = "a density" if spec.view is View.points else "series, which go on from what was seen of them"
        raise ConfigError(f"--start and --until are for trajectories, and this run learned {learned}")
    if request.interpolate and request.animate:
        raise ConfigError("--animate and --interpolate make pictures of different things; use one of them")
    if request.interpolate and not can_interpolate(model):
        raise ConfigError(
            f"--interpolate is through the base of a flow or a latent space, and model={name} has none; use a run of "
            "model=cnf, flow_matching or latent"
        )
    if request.animate and spec.view not in (View.points, View.trajectories):
        raise ConfigError(f"--animate moves points and trajectories, and model={name} learned {spec.view.value}")
    if request.animate and spec.numel < 2:
        raise ConfigError("--animate draws in the plane, and these states have one number; leave it out")


def _points(saved: Saved, request: Request, file: Path) -> None:
    model: Any = saved.experiment.model
    spec = saved.experiment.spec
    if not hasattr(model, "sample") or not hasattr(model, "log_prob"):
        raise ConfigError(f"model={saved.experiment.config.model.name} cannot be sampled")
    generator = torch.Generator().manual_seed(request.seed)
    count = request.count or POINTS
    sizes = [min(AT_ONCE, count - begun) for begun in range(0, count, AT_ONCE)]
    drawn = [model.sample(size, generator=generator) for size in sizes]
    points = numpy(torch.cat(drawn))
    densities = numpy(torch.cat([model.log_prob(part) for part in drawn]))
    labels = spec.names("x", points.shape[1])
    if file.suffix == ".csv":
        write_csv(file, [*labels, "log_density"], np.column_stack((points, densities)))
    else:
        write_npz(file, samples=points.reshape(count, *(spec.image or spec.shape)), log_density=densities)
    title = saved.title
    if spec.image:
        picture = draw_images(points, spec.image, spec.levels, title)
    else:
        picture = draw_points(points, densities, labels, title)
    write_figure(picture, file.with_suffix(".png"))
    if request.animate:
        _animate_flow(saved, request, labels, file.with_suffix(".gif"))


def _animate_flow(saved: Saved, request: Request, labels: Sequence[str], file: Path) -> None:
    model: Any = saved.experiment.model
    spec = saved.experiment.spec
    most = animation.IMAGES if spec.image else animation.MOVING
    generator = torch.Generator().manual_seed(request.seed)
    paths = numpy(model.path(min(most, request.count or most), animation.FRAMES, generator=generator))
    if spec.image:
        animation.animate_images(paths, spec.image, spec.levels, spec.dataset, file)
    else:
        animation.animate_points(paths, labels, spec.dataset, file)


def _between(saved: Saved, request: Request, file: Path) -> None:
    """From one test point to another, as many times as is asked for."""
    spec, test = saved.experiment.spec, saved.experiment.splits.test.x
    rows = pairs_of(saved, request)
    pairs = len(rows) // 2
    ends = test[rows.to(test.device)]
    ends = ends.to(saved.experiment.dtype)
    if spec.levels:
        ends = ends + 0.5  # the middle of each grey level
    steps = STEPS if spec.image else FINE
    paths = numpy(interpolate(saved.experiment.model, ends[:pairs], ends[pairs:], steps))
    labels = spec.names("x", paths.shape[2])
    if file.suffix == ".csv":
        number = np.repeat(np.arange(pairs), steps)
        share = np.tile(np.linspace(0, 1, steps), pairs)
        table = np.column_stack((number, share, paths.transpose(1, 0, 2).reshape(-1, paths.shape[2])))
        write_csv(file, ["pair", "share", *labels], table)
    else:
        write_npz(file, paths=paths)
    figure = draw_interpolations(paths, numpy(test), labels, spec.image, spec.levels, spec.dataset)
    write_figure(figure, file.with_suffix(".png"))


def _trajectories(saved: Saved, request: Request, file: Path) -> None:
    y0 = _first_states(saved, request)
    ts, horizon = _times(saved, request)
    ys = numpy(saved.experiment.model(y0, ts).value.transpose(0, 1))  # (N, T, D)
    _write_paths(saved, request, file, numpy(ts), ys, horizon)


def _paths(saved: Saved, request: Request, file: Path) -> None:
    """Paths of a process, nothing having been seen, without the noise of observations."""
    model: Any = saved.experiment.model
    ts, horizon = _times(saved, request)
    generator = torch.Generator().manual_seed(request.seed)
    drawn = model.generate(ts, request.count or TRAJECTORIES, generator=generator).value
    _write_paths(saved, request, file, numpy(ts), numpy(drawn.transpose(0, 1)), horizon)


def _times(saved: Saved, request: Request) -> tuple[Tensor, float]:
    """Times (T,) that were asked for, and the time at which the test part ends."""
    experiment = saved.experiment
    horizon = float(experiment.splits.test.ts[-1] - experiment.splits.test.ts[0])
    until = horizon if request.until is None else request.until
    if not 0 < until < math.inf:
        raise ConfigError(f"--until {until:g}: expected a time above 0")
    ts = torch.linspace(0, until, request.times, dtype=torch.float64, device=experiment.device)
    return ts.to(experiment.dtype), horizon


def _write_paths(saved: Saved, request: Request, file: Path, ts: Array, ys: Array, horizon: float) -> None:
    """Trajectories (N, T, D) at ts (T,) as numbers and as pictures."""
    spec = saved.experiment.spec
    labels = spec.names("y", ys.shape[2])
    if file.suffix == ".csv":
        write_csv(file, ["trajectory", "t", *labels], one_row_a_time(ts, ys))
    else:
        write_npz(file, ts=ts, ys=ys)
    write_figure(draw_trajectories(ts, ys, labels, spec.clock, horizon, saved.title), file.with_suffix(".png"))
    if request.animate:
        animation.animate_trajectories(ts, ys, labels, spec.dataset, file.with_suffix(".gif"))


def pairs_of(saved: Saved, request: Request) -> Tensor:
    """Rows (2 N,) of the test part: N starts and N ends, all different.

    Raises:
        ConfigError: it has fewer.
    """
    available = len(saved.experiment.splits.test)
    pairs = request.count or min(PAIRS, available // 2)
    if 2 * pairs > available or not pairs:
        raise ConfigError(f"--count {pairs}: the test part holds {available}, which makes {available // 2} pairs")
    return torch.randperm(available, generator=torch.Generator().manual_seed(request.seed))[: 2 * pairs]


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
        if len(row) != size or not all(map(math.isfinite, row)):
            names = ",".join(experiment.spec.names("y", size))
            raise ConfigError(f"--start {text}: expected {size} numbers separated by commas: {names}")
        rows.append(row)
    return torch.tensor(rows, dtype=experiment.dtype, device=experiment.device)
