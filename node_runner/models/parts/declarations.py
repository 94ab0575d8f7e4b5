"""What a model declares of itself: the views that it learns from, and the groups that play no part in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from node_runner.views import View


C = TypeVar("C", bound=Callable[..., Any])

SOLVE = ("solver", "tolerance", "adjoint", "engine")
"""The groups that a solve is made of."""


def learns_from(*views: View) -> Callable[[C], C]:
    """Decorator: declare the views of a data set that a model can be trained on."""

    def declare(component: C) -> C:
        component.views = views  # type: ignore[attr-defined]
        return component

    return declare


def views_of(component: Callable[..., Any]) -> tuple[View, ...]:
    """The views declared by `learns_from`."""
    views: tuple[View, ...] = component.views  # type: ignore[attr-defined]
    return views


def makes_no_use_of(*groups: str) -> Callable[[C], C]:
    """Decorator: declare the groups of a configuration that play no part in a model, in the order to name them in.

    The run says so, and does not name its choices in them.
    """

    def declare(component: C) -> C:
        component.unused = groups  # type: ignore[attr-defined]
        return component

    return declare


def unused_by(component: Callable[..., Any]) -> tuple[str, ...]:
    """The groups declared by `makes_no_use_of`."""
    groups: tuple[str, ...] = getattr(component, "unused", ())
    return groups
