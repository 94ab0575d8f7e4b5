"""Data sets of one view whose three parts are drawn from a formula: what they share."""

from __future__ import annotations

import abc
import functools
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from node_runner.datasets.parts.streams import TEST, TRAIN, VAL, not_offered
from node_runner.settings import Count, Seed
from node_runner.views import Splits, View


V = TypeVar("V")


@dataclass(kw_only=True)
class Drawn(abc.ABC, Generic[V]):
    """Draws a part when it is first asked for.

    A data set says its name and the view that it offers. Its settings are its own fields and those below; a field
    declared again has another default.

    Attributes:
        train, val, test: numbers of samples.
        seed: of the data; the seed of the training does not touch them.
    """

    name: ClassVar[str]
    views: ClassVar[tuple[View, ...]]

    train: Count = 1000
    val: Count = 200
    test: Count = 500
    seed: Seed = 0

    def check(self) -> None:
        """Nothing can be missing: the data come from a formula."""

    def splits(self, view: View) -> Splits[V]:
        """The three parts."""
        if view not in self.views:
            raise not_offered(self.name, view, self.views)
        return self._splits

    @functools.cached_property
    def _splits(self) -> Splits[V]:
        train, val, test = map(self._part, (TRAIN, VAL, TEST), (self.train, self.val, self.test))
        return Splits(train, val, test)

    @abc.abstractmethod
    def _part(self, part: int, size: int) -> V:
        """Draw one part, `size` samples by the streams of key `part`."""
