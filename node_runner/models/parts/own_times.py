"""Series that have times of their own: which models take them, and one grid of times for those that need one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from node_runner.batches import Lesson
from node_runner.errors import ConfigError
from node_runner.learning import ModelOutput
from node_runner.views import Series


Method = TypeVar("Method", bound=Callable[..., Any])


class Together:
    """The times of all series of a batch, in their order, each once.

    Attributes:
        ts: (U,) times, increasing.

    Args:
        ts: (T,) times that the series share, which then are the grid, or (T, B) those of each.
    """

    def __init__(self, ts: Tensor) -> None:
        self.ts: Tensor = ts
        self._places: Tensor | None = None
        if ts.dim() == 2:
            self.ts, self._places = torch.unique(ts, return_inverse=True)

    def spread(self, x: Tensor) -> Tensor:
        """(T, B, D) at the times of the series -> (U, B, D) on the grid, 0 or false between them.

        Where a series has a time twice, as it has the last one in its padding, what is not 0 counts.
        """
        if self._places is None:
            return x
        numbers = x.to(torch.uint8) if x.dtype is torch.bool else x
        places = self._places.unsqueeze(2).expand_as(x)
        return numbers.new_zeros(len(self.ts), *x.shape[1:]).scatter_add(0, places, numbers).to(x.dtype)

    def of_each(self, y: Tensor) -> Tensor:
        """(U, B, ...) on the grid -> (T, B, ...) at the times of the series."""
        if self._places is None:
            return y
        return y[self._places, torch.arange(y.shape[1], device=y.device)]


def own_times(method: Method) -> Method:
    """Declares that the `forward` of a model takes times of each series, ts (T, B), as well as shared ones, (T,)."""
    method.own_times = True  # type: ignore[attr-defined]
    return method


def refuse_own_times(model: nn.Module, series: Series) -> None:
    """Keep series that have times of their own from a model that does not say that it takes them.

    Raises:
        ConfigError: they have, and it does not.
    """
    if series.ts.dim() == 2 and not getattr(type(model).forward, "own_times", False):
        raise ConfigError(
            f"{type(model).__name__}.forward takes times (T,) that all series share, and here each series has its own: "
            "put @on_one_grid above it, or @own_times if it takes ts (T, B), "
            "both from node_runner.models.parts.own_times"
        )


def on_one_grid(method: Method) -> Method:
    """Puts series that have times of their own, ts (T, B), on one grid (T,) for a method of a model that needs one.

    Args:
        method: of ts, values and seen, and whatever more. Its result is a `ModelOutput`, draws (S, T, B, D), which are
            given back at the times of the series, or a tuple of what has no times.
    """

    @functools.wraps(method)
    def called(self: Any, ts: Tensor, values: Tensor, seen: Tensor, *more: Any, **named: Any) -> Any:
        if ts.dim() == 1:
            return method(self, ts, values, seen, *more, **named)
        grid = Together(ts)
        told = [_taught(grid, each) if isinstance(each, Lesson) else each for each in more]
        result = method(self, grid.ts, grid.spread(values), grid.spread(seen), *told, **named)
        if isinstance(result, ModelOutput):
            return result._replace(value=grid.of_each(result.value))
        return result if isinstance(result, tuple) else torch.stack([grid.of_each(draw) for draw in result])

    return own_times(called)  # type: ignore[return-value]


def _taught(grid: Together, lesson: Lesson) -> Lesson:
    return lesson._replace(target=grid.spread(lesson.target), known=grid.spread(lesson.known))
