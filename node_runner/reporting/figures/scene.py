"""What the figures of one run are drawn from, computed once and copied to the CPU."""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from node_runner.errors import SolveFailed
from node_runner.tasks.paths import path_batch
from node_runner.views import Dataset, DataSpec, Labelled, Series, Splits, Trajectories


Array = NDArray[np.float64]

CHUNK = 5000
"""Samples that are evaluated at a time."""

MOST = 1000
"""Trajectories of a part that are looked at."""

FEW = 1000
"""Examples that are classified where each takes long."""

POINTS, IMAGES, TIMES = 4000, 64, 6
"""Samples that are drawn from a flow, and times at which they are seen on their way."""

log = logging.getLogger("node_runner")


@dataclass(frozen=True)
class Prediction:
    """Trajectories of one part as observed and as the model continues them from their first state.

    Attributes:
        ts: (T,) times.
        true: (N, T, D) states, NaN where not observed.
        learned: (N, T, D) states, NaN where not finite.
        jumps: (N, K) times of the true events, then -1 (None: not known).
        events: (N, K') times of the predicted ones likewise (None: the model has none).
    """

    ts: Array
    true: Array
    learned: Array
    jumps: Array | None = None
    events: Array | None = None

    @functools.cached_property
    def errors(self) -> Array:
        """Euclidean distance (N, T) of learned and true states; infinite where only the learned one is missing."""
        distance: Array = np.linalg.norm(self.learned - self.true, axis=2)
        lost = np.isnan(self.learned).any(axis=2) & ~np.isnan(self.true).any(axis=2)
        distance[lost] = np.inf
        return distance

    @functools.cached_property
    def mse(self) -> Array:
        """Mean squared error (N,) of each trajectory; its first state is given and does not count."""
        seen = ~np.isnan(self.errors[:, 1:])
        squares = np.where(seen, self.errors[:, 1:], 0.0) ** 2
        mean: Array = squares.sum(axis=1) / (np.maximum(seen.sum(axis=1), 1) * self.true.shape[2])
        return mean

    @property
    def mean_mse(self) -> float:
        """Mean squared error over all observed states."""
        seen = (~np.isnan(self.errors[:, 1:])).sum(axis=1)
        return float((self.mse * seen).sum() / max(seen.sum(), 1))


@dataclass(frozen=True)
class Scene:
    """A trained model and what it learned from.

    Attributes:
        model: an nn.Module in eval mode, on its device. What it can do beside being called depends on its kind.
        spec: of the data.
        splits: of the view that the model learned from, on any device.
        dataset: the source of the data.
        metrics: what was measured, such as "test/mse"; figures repeat these numbers rather than measure again.
    """

    model: Any
    spec: DataSpec
    splits: Splits[Any]
    dataset: Dataset
    metrics: Mapping[str, float]

    def to_model(self, x: Any) -> Any:
        """`x`, a tensor or a part of a view, on the model's device, in its floating point type."""
        like = next(itertools.chain(self.model.parameters(), self.model.buffers()))
        return x.to(like.dtype).to(like.device)  # in this order, because MPS has no float64

    def evaluate(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Array:
        """function(x) (N, ...), a chunk of x (N, ...) at a time, without gradients, on the CPU."""
        with torch.no_grad():
            return np.concatenate([host(function(self.to_model(part))) for part in x.split(CHUNK)])

    @property
    def axis_names(self) -> list[str]:
        """A name for each axis of the state."""
        return list(self.spec.labels) or [f"$y_{{{i + 1}}}$" for i in range(self.spec.numel)]

    def measured(self, name: str) -> float | None:
        """A metric of the run, None where it was not measured."""
        return self.metrics.get(name)

    @functools.cached_property
    def predictions(self) -> dict[str, Prediction]:
        """Of every part with whole trajectories but "val", by name. A further test whose solve fails is left out."""
        found = {}
        for name, part in self.splits.items():
            if name == "val" or not len(part):
                continue
            try:
                found[name] = self._predict(part)
            except SolveFailed as failure:
                if name in ("train", "test"):
                    raise
                log.warning("figures leave %s out: %s", name, failure)
        return found

    @property
    def tests(self) -> Iterator[tuple[str, Prediction]]:
        """(name, prediction) of every test part, "test" first."""
        return ((name, prediction) for name, prediction in self.predictions.items() if name != "train")

    @property
    def longest(self) -> tuple[str, Prediction]:
        """(name, prediction) of the test part that goes on for longest."""
        return max(self.tests, key=lambda test: float(test[1].ts[-1]))

    @property
    def horizon(self) -> float:
        """Time at which the training trajectories end."""
        return float(self.predictions["train"].ts[-1])

    @functools.cached_property
    def series(self) -> Series:
        """The test series where the model is, in its floating point type."""
        series: Series = self.to_model(self.splits.test)
        return series

    @functools.cached_property
    def examples(self) -> Labelled:
        """Test examples that figures classify: all, or evenly chosen ones where all would take long."""
        test = self.splits.test
        if isinstance(test, Series):
            return Labelled(test.ys, test.labels)  # type: ignore[arg-type]
        state = getattr(getattr(self.model, "block", None), "state_shape", ())
        slow = len(state) == 3 and self.to_model(test.x[:1]).device.type == "cpu"  # convolutions
        every = -(-len(test) // FEW) if slow else 1
        return Labelled(test.x[::every], test.y[::every])

    def classify(self, x: Tensor) -> Array:
        """Probabilities (N, C) of the classes of x (N, P...)."""
        return self.evaluate(lambda part: self.model(part).value.softmax(dim=1), x)

    @functools.cached_property
    def probabilities(self) -> Array:
        """(N, C) of the classes of every one of `examples`."""
        if isinstance(self.splits.test, Series):
            with torch.no_grad():
                rows = self.series.rows().split(CHUNK)
                return np.concatenate([host(self._classify_paths(some)) for some in rows])
        return self.classify(self.examples.x)

    def _classify_paths(self, rows: Tensor) -> Tensor:
        batch = path_batch(self.series, rows)
        value: Tensor = self.model(batch.ts, batch.values, batch.seen).value.softmax(dim=1)
        return value

    @property
    def accuracy(self) -> str:
        """In words, with the number of examples that it is measured on."""
        hits = self.probabilities.argmax(axis=1) == self.examples.y.cpu().numpy()
        shown, total = len(self.examples), len(self.splits.test)
        some = f"{shown:,} of " if shown < total else ""
        return f"accuracy {hits.mean():.2%} on {some}{total:,} test examples"

    def log_prob(self, x: Tensor) -> Tensor:
        """The model's log-density (N,) at x (N, D)."""
        value: Tensor = self.model.log_prob(x)
        return value

    @functools.cached_property
    def paths(self) -> Array:
        """(TIMES, N, D) states of a flow on their way from the base to samples of the data, always the same."""
        with torch.no_grad():
            count = IMAGES if self.spec.image else POINTS
            states = self.model.path(count, TIMES, generator=torch.Generator().manual_seed(0))
            return host(states)

    def _predict(self, part: Trajectories) -> Prediction:
        ys, ts = self.to_model(part.ys[:MOST]), self.to_model(part.ts)
        with torch.no_grad():
            output = self.model(ys[:, 0], ts - ts[0], ts[:1].expand(len(ys)))
        true = host(part.ys[:MOST])
        if part.mask is not None:
            true[~part.mask[:MOST].cpu().numpy()] = np.nan
        jumps = None if part.events is None else host(part.events[:MOST])
        events = None if output.events is None else host(output.events)
        return Prediction(host(part.ts), true, host(output.value.transpose(0, 1)), jumps, events)


def host(x: Tensor) -> Array:
    """A copy on the CPU in float64, NaN where it is not finite."""
    copy: Array = x.detach().cpu().to(torch.float64, copy=True).numpy()
    copy[~np.isfinite(copy)] = np.nan
    return copy


def plane(x: tuple[float, float], y: tuple[float, float], size: int) -> Tensor:
    """The points (size * size, 2) of a grid, row by row from the lower left, float64."""
    rows, columns = torch.linspace(*y, size, dtype=torch.float64), torch.linspace(*x, size, dtype=torch.float64)
    return torch.cartesian_prod(rows, columns).flip(1)
