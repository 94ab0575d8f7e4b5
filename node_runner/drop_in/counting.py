"""A field that counts its calls, `self.nfe += 1`, counts those that an engine makes in its place."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import CodeType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from torch import nn

from node_runner.tracing.definition import Impure, definition_of


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


_written: WeakKeyDictionary[Callable[..., Any], dict[str, int]] = WeakKeyDictionary()


def counters_in(field: nn.Module) -> tuple[Counter, ...]:
    """What a field of any kind counts: `self.name += 1` at the start of its forward, which uses it nowhere else."""
    kind = type(field)
    forward = kind.forward
    if forward not in _written:
        _written[forward] = _counted(forward)
    return tuple(
        Counter(field, name, by)
        for name, by in _written[forward].items()
        if type(vars(field).get(name)) is int
        and kind.__setattr__ is nn.Module.__setattr__
        and not hasattr(getattr(kind, name, None), "__set__")
    )


def elsewhere(counters: Sequence[Counter], codes: Sequence[CodeType]) -> str | None:
    """The first of what is counted that other code than the forward which counts it names too."""
    for owner, name, _ in counters:
        if any(_names(code, name) for code in codes if code is not type(owner).forward.__code__):
            return name
    return None


def _names(code: CodeType, name: str) -> bool:
    return name in code.co_names or any(_names(c, name) for c in code.co_consts if isinstance(c, CodeType))


def _counted(forward: Callable[..., Any]) -> dict[str, int]:
    """By how much each call raises the names that a forward counts in."""
    found: dict[str, int] = {}
    try:
        definition = definition_of(forward)
    except Impure:
        return found
    for statement in definition.body:
        match statement:
            case ast.AugAssign(
                target=ast.Attribute(value=ast.Name(id=owner), attr=name), op=ast.Add(), value=ast.Constant(1)
            ) if definition.args.args and owner == definition.args.args[0].arg:
                found[name] = found.get(name, 0) + 1
            case ast.Expr(value=ast.Constant()) | ast.Assign() | ast.AnnAssign():
                continue
            case _:  # it may not come to what follows
                break
    named = [node.attr for node in ast.walk(definition) if isinstance(node, ast.Attribute)]
    return {name: by for name, by in found.items() if named.count(name) == by}


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
