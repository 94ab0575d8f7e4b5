"""Points that a density was not fitted to: another data set's, the user's own, noise, or its own images spoilt."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from node_runner.cli.ood.foreign_files import from_files, looks_like_a_file
from node_runner.datasets import DATASETS
from node_runner.errors import ConfigError, did_you_mean
from node_runner.registry import MISSING
from node_runner.runs.saved import Saved
from node_runner.views import DataSpec, View


SPOILT = {
    "uniform": "noise, uniform over the grey levels or over the box that holds the training data",
    "permuted": "the test points, each one's pixels or coordinates in an order of its own",
    "inverted": "the test images with black for white",
}
"""What needs no other data."""


def foreign(saved: Saved, name: str, count: int, seed: int) -> tuple[Tensor, str]:
    """`count` points at the most (n, D) that look like those of the run, and what they are in words.

    Args:
        saved: a run that learned a density.
        name: one of `SPOILT`, a data set, or a file or folder of the user's own.
        count: of points.
        seed: of what is drawn.

    Raises:
        ConfigError: no such data, or points of another shape.
    """
    experiment = saved.experiment
    spec = experiment.spec
    test: Tensor = experiment.splits.test.x[:count].cpu()
    generator = torch.Generator().manual_seed(seed)
    if name == "uniform":
        return _uniform(experiment.splits.train.x.cpu(), spec, count, generator), SPOILT[name]
    if name == "permuted":
        order = torch.rand(test.shape, generator=generator).argsort(dim=1)
        return test.gather(1, order), SPOILT[name]
    if name == "inverted":
        if not spec.levels:
            raise ConfigError(f"--against inverted is for images, and dataset={spec.dataset} has none: use uniform")
        return spec.levels - 1 - test, SPOILT[name]
    return _other(name, spec, count)


def _uniform(train: Tensor, spec: DataSpec, count: int, generator: torch.Generator) -> Tensor:
    if spec.levels:
        return torch.randint(spec.levels, (count, spec.numel), generator=generator).to(train.dtype)
    low, high = train.amin(dim=0), train.amax(dim=0)
    return low + (high - low) * torch.rand(count, spec.numel, generator=generator, dtype=train.dtype)


def _other(name: str, spec: DataSpec, count: int) -> tuple[Tensor, str]:
    known = [*SPOILT, *DATASETS.names()]
    if name not in known and looks_like_a_file(name):
        return from_files(name, spec, count)
    if name not in known:
        raise ConfigError(f"--against {name}: no such data; {did_you_mean(name, known)}")
    if name == spec.dataset:
        raise ConfigError(f"--against {name}: the run was trained on it; use another data set, or {', '.join(SPOILT)}")
    settings = DATASETS.schema(name)()
    if any(value == MISSING for value in vars(settings).values()):
        raise ConfigError(f"--against {name}: it has settings that must be given; use a data set that needs none")
    try:
        dataset = DATASETS.build(settings)
        dataset.check()
    except ConfigError as error:
        raise ConfigError(f"--against {name}: {error}") from error
    if View.points not in dataset.views:
        raise ConfigError(f"--against {name}: it has no points, only {', '.join(v.value for v in dataset.views)}")
    theirs: DataSpec = dataset.spec(View.points)
    test: Tensor = dataset.splits(View.points).test.x[:count]
    if spec.image and theirs.image and spec.image[0] == theirs.image[0]:
        return resized(test, theirs, spec), _in_words(theirs, spec)
    if theirs.shape != spec.shape or bool(theirs.levels) != bool(spec.levels):
        raise ConfigError(
            f"--against {name}: its points have shape {theirs.shape}, and those of dataset={spec.dataset} {spec.shape}"
            f"; use data of that shape, or {', '.join(SPOILT)}"
        )
    return test, f"test points of {name}"


def resized(images: Tensor, theirs: DataSpec, ours: DataSpec) -> Tensor:
    """Images (N, P) in the size and grey levels of others: means over the area of each pixel, rounded to a level."""
    if theirs.image == ours.image and theirs.levels == ours.levels:
        return images
    shape, size = theirs.image, ours.image[1:]
    share = images.reshape(-1, *shape).to(torch.float64) / (theirs.levels - 1)
    means = F.interpolate(share, size=size, mode="area")
    return (means * (ours.levels - 1)).round().flatten(1).to(images.dtype)


def _in_words(theirs: DataSpec, ours: DataSpec) -> str:
    words = f"test images of {theirs.dataset}"
    if theirs.image != ours.image:
        (_, height, width), (_, low, narrow) = theirs.image, ours.image
        words += f", {height} x {width} averaged to {low} x {narrow}"
    if theirs.levels != ours.levels:
        words += f", {theirs.levels} grey levels to {ours.levels}"
    return words
