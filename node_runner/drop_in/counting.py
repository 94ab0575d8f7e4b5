"""A field that counts its calls, `self.nfe += 1`, counts those that an engine makes in its place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import nn


class Counter(NamedTuple):
    """An attribute of a module, and by how much a call of the field raises it."""

    owner: nn.Module
    name: str
    by: int


def counters_of(field: nn.Module, counts: Sequence[tuple[int, str, int]]) -> tuple[Counter, ...]:
    """What a field counts.

    Args:
        field: a module.
        counts: (part, name, by), the part by its place among the field's modules.
    """
    if not counts:
        return ()
    parts = tuple(field.modules())
    return tuple(Counter(parts[i], name, by) for i, name, by in counts)


def count(counters: Sequence[Counter], calls: int) -> None:
    """As after so many calls of the field."""
    for owner, name, by in counters:
        setattr(owner, name, getattr(owner, name) + by * calls)


@contextmanager
def uncounted(counters: Sequence[Counter]) -> Iterator[None]:
    """The calls made within leave no trace."""
    before: list[Any] = [getattr(owner, name) for owner, name, _ in counters]
    try:
        yield
    finally:
        for (owner, name, _), value in zip(counters, before, strict=True):
            setattr(owner, name, value)
