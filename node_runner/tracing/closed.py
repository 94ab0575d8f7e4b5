"""A plain function f(t, y) as a module, whose parts are the modules that it names."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from torch import Tensor, nn

from node_runner.tracing.naming import naming


class Closed(nn.Module):
    """A function, bound method or other callable as a module.

    Its parts are the modules among what the function names (`variables`), so that their parameters are its own.

    Args:
        function: f(t, y).
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        for value in variables(function).values():
            if isinstance(value, nn.Module) and value not in self._modules.values():
                self.add_module(str(len(self._modules)), value)

    def forward(self, t: Tensor, y: Any) -> Any:
        """t: (), y: as the function takes it."""
        return self.function(t, y)


def as_module(function: Callable[..., Any]) -> nn.Module:
    """The function itself, if it is a module, or a module of it."""
    return function if isinstance(function, nn.Module) else Closed(function)


def bound(function: Callable[..., Any]) -> tuple[Any, types.FunctionType | None]:
    """The object that a method, or a call of an object, is of (None: of none), and the function that then runs."""
    if isinstance(function, types.FunctionType):
        return None, function
    if isinstance(function, types.MethodType):
        owner, inner = function.__self__, function.__func__
    else:
        owner, inner = function, type(function).__call__
    return owner, inner if isinstance(inner, types.FunctionType) else None


def closure(function: types.FunctionType) -> dict[str, Any]:
    """What a function closes over, by its name."""
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # a name that is not bound yet
            found[name] = cell.cell_contents
    return found


def variables(function: Callable[..., Any]) -> dict[str, Any]:
    """What names in a function stand for that are not its own: of what it closes over, and of global variables.

    Of a method, or of an object that is called, also the attributes of the object that it asks for, as "self.name".
    Of a module whose parts alone are asked for, these: "model.net".
    """
    owner, inner = bound(function)
    if inner is None:
        return {}
    names, inside = naming(inner.__code__), closure(inner)
    found: dict[str, Any] = {}
    for path in sorted(names.paths):
        value = inside.get(path[0], inner.__globals__.get(path[0]))
        name = path[0]
        for part in path[1:]:
            below = value._modules.get(part) if isinstance(value, nn.Module) else None
            if below is None:
                break
            name, value = f"{name}.{part}", below
        if value is not None:
            found[name] = value
    own = {**getattr(owner, "__dict__", {}), **getattr(owner, "_modules", {})}
    for name in sorted(names.attributes) if owner is not None else ():
        value = own[name] if name in own else inspect.getattr_static(type(owner), name, None)
        if value is not None:
            found[f"self.{name}"] = value
    return found
