"""A plain function f(t, y) as a module, whose parts are the modules that it names."""

from __future__ import annotations

import types
from collections.abc import Callable
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


def variables(function: Callable[..., Any]) -> dict[str, Any]:
    """What names in a function stand for that are not its own: of what it closes over, and of global variables.

    Of a method, or of an object that is called, also the attributes of the object that it asks for.
    """
    owner = None
    if isinstance(function, types.MethodType):
        owner, function = function.__self__, function.__func__
    elif not isinstance(function, types.FunctionType):
        owner, function = function, type(function).__call__
    if not isinstance(function, types.FunctionType):
        return {}
    names = naming(function.__code__)
    found = {name: function.__globals__[name] for name in names.variables if name in function.__globals__}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # a name that is not bound yet
            continue
    own = {**getattr(owner, "__dict__", {}), **getattr(owner, "_modules", {})}
    return found | {f"self.{name}": own[name] for name in sorted(names.attributes & own.keys())}
