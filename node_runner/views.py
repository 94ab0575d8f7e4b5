"""How data are looked at: the views of a data set, their parts, and what a model must know of them.

Shapes: N samples of a data set, T times, D state, P pixels or features.
"""

from __future__ import annotations

import abc
import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor


V = TypeVar("V")
W = TypeVar("W")

EVEN = 200
"""Times of a grid for what belongs to no series, where each series has times of its own."""


class View(enum.Enum):
    """How a data set can be looked at; a model learns from one view, and the task joins the two."""

    trajectories = "trajectories"
    labelled = "labelled"
    points = "points"
    series = "series"
    paths = "paths"
    processes = "processes"


class Part(abc.ABC):
    """Samples of one view. All its tensors are on one device."""

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @property
    def device(self) -> torch.device:
        """Where the data are."""
        return next(value.device for value in vars(self).values() if isinstance(value, Tensor))

    def rows(self, most: int | None = None) -> Tensor:
        """Indices (n,) of the samples, in their order and where the data are: of all, or of the first `most`."""
        return torch.arange(len(self) if most is None else min(most, len(self)), device=self.device)


@dataclass(frozen=True)
class Trajectories(Part):
    """States observed along solutions.

    Attributes:
        ts: (T,) times, increasing, shared by all trajectories.
        ys: (N, T, D) states.
        mask: (N, T) true where observed (None: everywhere). Ragged lengths end in false.
        events: (N, K) times at which the true states jump, in order, then -1 where there are fewer than K (None: not
            known, or none). What predictions are measured with; no batch holds them.
    """

    ts: Tensor
    ys: Tensor
    mask: Tensor | None = None
    events: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ys)

    def to(self, *args: Any) -> Trajectories:
        mask = None if self.mask is None else self.mask.to(self.ys.device)
        events = None if self.events is None else self.events.to(*args)
        moved = replace(self, ts=self.ts.to(*args), ys=self.ys.to(*args), events=events)
        return replace(moved, mask=None if mask is None else mask.to(moved.ys.device))


@dataclass(frozen=True)
class Labelled(Part):
    """Examples with a class. x: (N, P...) floats, y: (N,) int64 class indices."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def to(self, *args: Any) -> Labelled:
        x = self.x.to(*args)
        return Labelled(x, self.y.to(x.device))


@dataclass(frozen=True)
class Points(Part):
    """Samples of a density. x: (N, D) floats; for images the integers 0..levels-1, which the task dequantises."""

    x: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def to(self, *args: Any) -> Points:
        return Points(self.x.to(*args))


@dataclass(frozen=True)
class Series(Part):
    """Series observed at some times, in some channels.

    Attributes:
        ts: (T,) times, increasing, shared by all series, or (N, T) each its own. Those begin together and end together:
            the last time is repeated as often as a series has fewer than T, and nothing is seen or known there.
        ys: (N, T, D) measured values, 0 where nothing was measured.
        seen: (N, T, D) true where a model may look.
        known: (N, T, D) true where a prediction can be held against something.
        labels: (N,) int64 class indices (None: there are no classes).
        truth: (N, T, D) exact values, which predictions are held against (None: `ys`, with the noise in them).
    """

    ts: Tensor
    ys: Tensor
    seen: Tensor
    known: Tensor
    labels: Tensor | None = None
    truth: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ys)

    @property
    def target(self) -> Tensor:
        """(N, T, D) what predictions are held against, where `known`."""
        return self.ys if self.truth is None else self.truth

    @property
    def times(self) -> Tensor:
        """(N, T) of each series, shared or not."""
        return self.ts if self.ts.dim() == 2 else self.ts.expand(len(self), -1)

    @property
    def grid(self) -> Tensor:
        """(T,) times for what belongs to no series, such as draws: those that are shared, or evenly spaced ones."""
        if self.ts.dim() == 1:
            return self.ts
        begin, end = float(self.ts[0, 0]), float(self.ts[0, -1])
        return torch.linspace(begin, end, EVEN, dtype=self.ts.dtype, device=self.ts.device)

    @property
    def last_seen(self) -> float:
        """The last time at which anything may be seen in any series; the first of all where nothing may."""
        return float(torch.where(self.seen.any(dim=2), self.times, self.times.min()).max())

    def to(self, *args: Any) -> Series:
        ys = self.ys.to(*args)
        seen, known = self.seen.to(ys.device), self.known.to(ys.device)
        labels = None if self.labels is None else self.labels.to(ys.device)
        truth = None if self.truth is None else self.truth.to(*args)
        return Series(self.ts.to(*args), ys, seen, known, labels, truth)


@dataclass(frozen=True)
class Splits(Generic[V]):
    """Disjoint parts of a view. `extra` holds further test sets by name, such as "test_long"."""

    train: V
    val: V
    test: V
    extra: Mapping[str, V] = field(default_factory=dict)

    @property
    def tests(self) -> dict[str, V]:
        """The test parts by name, "test" first."""
        return {"test": self.test, **self.extra}

    def items(self) -> list[tuple[str, V]]:
        """(name, part) of every part, training first."""
        return [("train", self.train), ("val", self.val), *self.tests.items()]

    def __getitem__(self, name: str) -> V:
        """The part of that name."""
        return dict(self.items())[name]

    def map(self, change: Callable[[V], W]) -> Splits[W]:
        """What `change` makes of each part."""
        extra = {name: change(part) for name, part in self.extra.items()}
        return Splits(change(self.train), change(self.val), change(self.test), extra)


@dataclass(frozen=True)
class Equation:
    """A known right-hand side whose parameters are to be found.

    Attributes:
        form: f(t, y, **parameters) for y (B, D) -> (B, D), in the data's units.
        parameters: each one's name and the value from which learning starts, above 0 as the true one must be.
        truth: the true values, which what is found is measured with and no model reads (empty: not known).
    """

    form: Callable[..., Any]
    parameters: Mapping[str, float]
    truth: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Law:
    """The exact law of a Gaussian process dx = drift(x) dt + diffusion(x) dW whose channels are independent and alike.

    Attributes:
        mean: of x at times (T,) -> (T,).
        covariance: of x between times (S,) and (T,) -> (S, T).
        drift, diffusion: of x (...,) -> (...,).
        noise: standard deviation of the independent Gaussian noise on every observation.
    """

    mean: Callable[[Tensor], Tensor]
    covariance: Callable[[Tensor, Tensor], Tensor]
    drift: Callable[[Tensor], Tensor]
    diffusion: Callable[[Tensor], Tensor]
    noise: float = 0.0


@dataclass(frozen=True)
class Graph:
    """What joins the nodes of a system whose state is that of its nodes, one after another.

    Attributes:
        adjacency: (n, n) weight of each edge, symmetric, 0 where there is none, float64.
        places: (n, 2) where figures put the nodes, float64.
    """

    adjacency: Tensor
    places: Tensor


@dataclass(frozen=True)
class DataSpec:
    """What a model must know of the data it is built for.

    Attributes:
        dataset: its name.
        view: the view that was chosen.
        shape: of one state, example or point, without batch: (D,) or (channels, height, width).
        num_classes: of the views with classes (0 elsewhere).
        classes: their names, for figures (empty: their numbers).
        mean, std: (D,) or () of the training part, float64; the model standardises with them.
        levels: grey levels of integer-valued images (256), 0 for continuous data.
        image: (channels, height, width) where the points are flattened images, else ().
        frequencies: (D, levels) share of each grey level in each pixel of the training part, float64.
        images: (N, D) grey levels of the training part (None: not given).
        labels: names of the axes of the state, for figures.
        energy: what the true system conserves, states (..., D) -> (...,), zero where it is least (None: nothing).
        conserved: what `energy` is called, in figures and in the metric of its drift.
        clock: what time is called in figures.
        equation: of the true system, with its parameters unknown (None: not given).
        autonomous: whether the law of the true system leaves time out.
        entropy: of the density that points come from, in nats (None: not known).
        law: of the process that series are drawn from (None: not known).
        graph: of the nodes that the state (n * features,) belongs to, node by node (None: there are no nodes).
        times: most that a training series has, where each series has times of its own (0: they share them).
    """

    dataset: str
    view: View
    shape: tuple[int, ...]
    mean: Tensor
    std: Tensor
    num_classes: int = 0
    classes: tuple[str, ...] = ()
    levels: int = 0
    image: tuple[int, ...] = ()
    frequencies: Tensor | None = None
    images: Tensor | None = None
    labels: tuple[str, ...] = ()
    energy: Callable[[Any], Any] | None = None
    conserved: str = "energy"
    clock: str = "time"
    equation: Equation | None = None
    autonomous: bool = True
    entropy: float | None = None
    law: Law | None = None
    graph: Graph | None = None
    times: int = 0

    @property
    def numel(self) -> int:
        """Numbers in one state, example or point."""
        product = 1
        for size in self.shape:
            product *= size
        return product

    @property
    def class_names(self) -> list[str]:
        """What each class is called: `classes`, or where there are none its number."""
        return list(self.classes) or [str(number) for number in range(self.num_classes)]

    def names(self, letter: str, count: int) -> list[str]:
        """What `count` axes are called: `labels`, or where there are none the letter and a number."""
        return list(self.labels) or [f"{letter}{i}" for i in range(count)]


class Dataset(Protocol):
    """A named source of data. Built once; a view is made when it is asked for."""

    views: tuple[View, ...]
    """Views it offers, the most natural one first."""

    def check(self) -> None:
        """Refuse settings or files that cannot give the data, before any other work.

        Raises:
            ConfigError: settings. DataError: files.
        """
        ...

    def splits(self, view: View) -> Splits[Any]:
        """Train, validation and test parts of one view, on the CPU in float64 (images: uint8 or float32)."""
        ...

    def spec(self, view: View) -> DataSpec:
        """What a model must know of that view."""
        ...
