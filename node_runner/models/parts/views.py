"""Which views of a data set a model learns from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from node_runner.views import View


C = TypeVar("C", bound=Callable[..., Any])


def learns_from(*views: View) -> Callable[[C], C]:
    """Decorator: declare the views that a model can be trained on."""

    def declare(component: C) -> C:
        component.views = views  # type: ignore[attr-defined]
        return component

    return declare


def views_of(component: Callable[..., Any]) -> tuple[View, ...]:
    """The views declared by `learns_from`."""
    views: tuple[View, ...] = component.views  # type: ignore[attr-defined]
    return views
