"""What a function is made of: its tensors, where each is kept, and everything else that its code depends on."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn


MOST_OBJECTS = 20_000
"""A field that reaches more than this holds something that is none of its parts, such as a data set."""

ATOMS = (
    type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size, type(Ellipsis), slice,
    type, types.BuiltinFunctionType, types.BuiltinMethodType, types.MethodDescriptorType, types.ModuleType, Enum,
)  # fmt: skip

NUMBERS = (bool, int, float, str)
"""Kinds of global variables that the code of a field may depend on."""

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
PARTS = ("_parameters", "_buffers", "_modules")
INTERNAL = frozenset(nn.Module().__dict__) - {"training"}


class Unreadable(Exception):
    """Something that a graph could not follow when it changes, in words that complete "the field ..."."""


class Slot(NamedTuple):
    """A place that holds a value: holder[name], or the one value of a closure's cell."""

    holder: Any
    name: Any

    def put(self, value: Any) -> None:
        """Replace the value."""
        if isinstance(self.holder, types.CellType):
            self.holder.cell_contents = value
        else:
            self.holder[self.name] = value


class Reading(NamedTuple):
    """The parts of a function.

    key: equal for functions that run the same code on tensors of the same kinds.
    tensors: each once. slots: the places of each. numbers: places and values of what is no tensor.
    held: objects that the key knows by their address, which must not be used again.
    """

    key: tuple[Any, ...]
    tensors: tuple[Tensor, ...]
    slots: list[list[Slot]]
    numbers: list[tuple[Slot, Any]]
    held: list[Any]

    @contextmanager
    def holding(self, tensors: Sequence[Tensor]) -> Iterator[None]:
        """Within this block the function has these tensors in place of its own."""
        try:
            self._put(tensors)
            yield
        finally:
            self._put(self.tensors)

    def _put(self, tensors: Sequence[Tensor]) -> None:
        for slots, tensor in zip(self.slots, tensors, strict=True):
            for slot in slots:
                slot.put(tensor)

    def restore(self) -> None:
        """Undo what calls changed in the function, tensors apart."""
        for slot, value in self.numbers:
            slot.put(value)


def read(*roots: Any) -> Reading:
    """Read functions, with all that they reach.

    Raises:
        Unreadable: they keep a tensor where nothing can replace it, or reach too much.
    """
    reader = _Reader()
    for root in roots:
        reader.visit(root, None)
    return Reading(tuple(reader.key), tuple(reader.tensors), reader.slots, reader.numbers, reader.held)


class _Reader:
    """Depth first through modules, containers, closures and plain objects."""

    def __init__(self) -> None:
        self.key: list[Any] = []
        self.tensors: list[Tensor] = []
        self.slots: list[list[Slot]] = []
        self.numbers: list[tuple[Slot, Any]] = []
        self.held: list[Any] = []
        self.seen: dict[int, int] = {}

    def visit(self, value: Any, slot: Slot | None) -> None:
        """Write down what `value` is made of; `slot` is where it was found, and where another can be put."""
        key = self.key
        if isinstance(value, Tensor):
            self._tensor(value, slot)
            return
        if isinstance(value, ATOMS):
            key.append(type(value))
            key.append(value)
            if slot is not None:
                self.numbers.append((slot, value))
            return
        if self._again(value):
            return
        if len(self.seen) > MOST_OBJECTS:
            raise Unreadable(f"reaches more than {MOST_OBJECTS} objects")
        key.append(type(value))
        if isinstance(value, nn.Module):
            self._module(value)
        elif isinstance(value, types.FunctionType):
            self._function(value)
        elif isinstance(value, types.MethodType):
            self.visit(value.__func__, None)
            self.visit(value.__self__, None)
        elif isinstance(value, functools.partial):
            for part in (value.func, value.args, value.keywords):
                self.visit(part, None)
        elif isinstance(value, dict):
            self._mapping(value)
        elif isinstance(value, list):
            key.append(len(value))
            for i, item in enumerate(value):
                self.visit(item, Slot(value, i))
        elif isinstance(value, (tuple, set, frozenset)):
            key.append(len(value))
            for item in value:
                self.visit(item, None)
        elif isinstance(value, np.ndarray):
            key.append((value.shape, value.dtype, value.tobytes()))
        elif hasattr(value, "__dict__"):
            self._mapping(vars(value))
        else:
            key.append(id(value))
            self.held.append(value)

    def _tensor(self, tensor: Tensor, slot: Slot | None) -> None:
        if type(tensor) not in (Tensor, nn.Parameter):
            raise Unreadable(f"has a tensor of the special kind {type(tensor).__name__}")
        if slot is None:
            raise Unreadable("keeps a tensor in a tuple or a default, where a graph cannot follow it")
        if self._again(tensor):
            self.slots[next(i for i, known in enumerate(self.tensors) if known is tensor)].append(slot)
            return
        self.key.append((tensor.shape, tensor.stride(), tensor.dtype, tensor.device, tensor.requires_grad))
        self.tensors.append(tensor)
        self.slots.append([slot])

    def _code(self, function: types.FunctionType) -> None:
        """What the function does, and the global numbers that it names."""
        self.key.append(function.__code__)
        known = function.__globals__
        for name in function.__code__.co_names:
            if isinstance(known.get(name), NUMBERS):
                self.key.append((name, type(known[name]), known[name]))

    def _again(self, value: Any) -> bool:
        """Whether a value was seen before; if so, the key says where."""
        number = self.seen.get(id(value))
        if number is None:
            self.seen[id(value)] = len(self.seen)
            return False
        self.key.append(("again", number))
        return True

    def _module(self, module: nn.Module) -> None:
        own = module.__dict__
        if any(own[name] for name in HOOKS):
            raise Unreadable(f"has hooks on {type(module).__name__}, which compiled code would not call")
        if isinstance(forward := type(module).forward, types.FunctionType):
            self._code(forward)
        for name in PARTS:
            if own[name]:
                self._mapping(own[name])
        for name, value in own.items():
            if name not in INTERNAL:
                self.key.append(name)
                self.visit(value, Slot(own, name))

    def _function(self, function: types.FunctionType) -> None:
        self._code(function)
        self.visit(function.__defaults__, None)
        if function.__kwdefaults__:
            self._mapping(function.__kwdefaults__)
        for cell in function.__closure__ or ():
            try:
                content = cell.cell_contents
            except ValueError:  # a name that was never bound
                continue
            self.visit(content, Slot(cell, None))

    def _mapping(self, mapping: dict[Any, Any]) -> None:
        self.key.append(len(mapping))
        for name, value in mapping.items():
            self.visit(name, None)
            self.visit(value, Slot(mapping, name))
