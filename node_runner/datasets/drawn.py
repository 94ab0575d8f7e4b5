"""Data sets of one view whose three parts are drawn from a formula: what they share."""

from __future__ import annotations

import abc
import functools
from typing import ClassVar, Generic, TypeVar

from node_runner.datasets.parts import TEST, TRAIN, VAL, not_offered
from node_runner.views import Splits, View


V = TypeVar("V")


class Drawn(abc.ABC, Generic[V]):
    """Draws a part when it is first asked for.

    Attributes:
        name: of the data set.
        views: the one that it offers.
        sizes: of training, validation and test.
    """

    name: ClassVar[str]
    views: ClassVar[tuple[View, ...]]
    sizes: tuple[int, int, int]

    def check(self) -> None:
        """Nothing can be missing: the data come from a formula."""

    def splits(self, view: View) -> Splits[V]:
        """The three parts."""
        if view not in self.views:
            raise not_offered(self.name, view, self.views)
        return self._splits

    @functools.cached_property
    def _splits(self) -> Splits[V]:
        train, val, test = map(self._part, (TRAIN, VAL, TEST), self.sizes)
        return Splits(train, val, test)

    @abc.abstractmethod
    def _part(self, part: int, size: int) -> V:
        """Draw one part, `size` samples by the streams of key `part`."""
