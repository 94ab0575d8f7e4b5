"""Which groups of a run's configuration play no part in a model: the run says so, and does not name its choices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar


C = TypeVar("C", bound=Callable[..., Any])

SOLVE = ("solver", "tolerance", "adjoint", "engine")
"""The groups that a solve is made of."""


def makes_no_use_of(*groups: str) -> Callable[[C], C]:
    """Decorator: declare the groups, in the order in which the run is to name them."""

    def declare(component: C) -> C:
        component.unused = groups  # type: ignore[attr-defined]
        return component

    return declare


def unused_by(component: Callable[..., Any]) -> tuple[str, ...]:
    """The groups declared by `makes_no_use_of`."""
    groups: tuple[str, ...] = getattr(component, "unused", ())
    return groups
