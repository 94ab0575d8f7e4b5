"""What a function is made of: its tensors, where each is kept, and everything else that its code depends on."""

from __future__ import annotations

import functools
import sys
import types
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from node_runner.tracing.naming import is_library, naming


MOST_OBJECTS = 20_000
"""A field that reaches more than this holds something that is none of its parts, such as a data set."""

ATOMS = (
    type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size, type(Ellipsis), slice,
    type, types.BuiltinFunctionType, types.BuiltinMethodType, types.MethodDescriptorType, types.ModuleType, Enum,
    range, np.generic,
)  # fmt: skip

NUMBERS = (bool, int, float, str)
"""Kinds of global variables that the code of a field may depend on."""

NEVER_CALLED = frozenset(("__init__", "__new__", "__del__", "__repr__", "__str__", "__init_subclass__"))
"""Methods with such names are not what an evaluation calls; others with two underscores may be, without being named."""

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
PARTS = ("_parameters", "_buffers", "_modules")
INTERNAL = frozenset(nn.Module().__dict__) - {"training"}


class Unreadable(Exception):
    """Something that a graph could not follow when it changes, in words that complete "the field ..."."""


class Slot(NamedTuple):
    """A place that holds a value: holder[name], or the one value of a closure's cell."""

    holder: Any
    name: Any

    def get(self) -> Any:
        """The value."""
        if isinstance(self.holder, types.CellType):
            return self.holder.cell_contents
        return self.holder[self.name]

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
    contents: lists and dictionaries, with what was in them.
    held: objects that the key knows by their address, which must not be used again.
    """

    key: tuple[Any, ...]
    tensors: tuple[Tensor, ...]
    slots: list[list[Slot]]
    numbers: list[tuple[Slot, Any]]
    contents: list[tuple[Any, Any]]
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

    def holds(self, tensors: Sequence[Tensor]) -> bool:
        """Whether the function has these tensors still, and no call has put others in their places."""
        return all(slot.get() is x for slots, x in zip(self.slots, tensors, strict=True) for slot in slots)

    def restore(self) -> None:
        """Undo what calls changed in the function, tensors apart."""
        for holder, before in self.contents:
            if isinstance(holder, dict):
                for name in holder.keys() - before.keys():
                    del holder[name]
            elif len(holder) != len(before):
                holder[:] = before
        for slot, value in self.numbers:
            slot.put(value)

    @property
    def codes(self) -> list[types.CodeType]:
        """All code of the user's that it runs."""
        return [part for part in self.key if isinstance(part, types.CodeType)]


def read(*roots: Any) -> Reading:
    """Read functions, with all that they reach: what they close over, and of the files of users also the global
    variables, functions and methods that they name.

    A root may say in `counted` which numbers it counts its calls in, as (module, name): nothing depends on them.

    Raises:
        Unreadable: they keep a tensor where nothing can replace it, reach too much, or do more than compute.
    """
    reader = _Reader()
    reader.key.append(torch.get_default_dtype())
    for root in roots:
        reader.uncounted |= {(id(module), name) for module, name in getattr(root, "counted", ())}
    for root in roots:
        reader.visit(root, None)
    reader.members()
    return Reading(tuple(reader.key), tuple(reader.tensors), reader.slots, reader.numbers, reader.contents, reader.held)


class _Reader:
    """Depth first through modules, containers, closures and plain objects."""

    def __init__(self) -> None:
        self.key: list[Any] = []
        self.tensors: list[Tensor] = []
        self.slots: list[list[Slot]] = []
        self.numbers: list[tuple[Slot, Any]] = []
        self.contents: list[tuple[Any, Any]] = []
        self.held: list[Any] = []
        self.seen: dict[int, int] = {}
        self.uncounted: set[tuple[int, str]] = set()
        # Classes and files of users, of which what the code names is read too.
        self.homes: dict[int, tuple[Any, Mapping[str, Any]]] = {}
        self.named: set[str] = set()

    def visit(self, value: Any, slot: Slot | None) -> None:
        """Write down what `value` is made of; `slot` is where it was found, and where another can be put."""
        key = self.key
        if isinstance(value, Tensor):
            self._tensor(value, slot)
            return
        if isinstance(value, ATOMS):
            key.append(type(value))
            key.append(repr(value) if isinstance(value, slice) else value)  # slices have no hash before Python 3.12
            if isinstance(value, type | types.ModuleType):
                self._home(value)
            if slot is not None:
                self.numbers.append((slot, value))
            return
        if self._again(value):
            return
        if len(self.seen) > MOST_OBJECTS:
            raise Unreadable(f"reaches more than {MOST_OBJECTS} objects")
        key.append(type(value))
        self._home(type(value))
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
            self.contents.append((value, list(value)))
            key.append(len(value))
            for i, item in enumerate(value):
                self.visit(item, Slot(value, i))
        elif isinstance(value, property | staticmethod | classmethod):
            self.visit(value.fget if isinstance(value, property) else value.__func__, None)
        elif isinstance(value, (tuple, set, frozenset, deque)):
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
        """What the function does, and what the global names in it stand for."""
        code, known = function.__code__, function.__globals__
        self.key.append(code)
        if is_library(code.co_filename):
            for name in code.co_names:
                if isinstance(known.get(name), NUMBERS):
                    self.key.append((name, type(known[name]), known[name]))
            return
        names = naming(code)
        self.named |= names.attributes
        for name in names.variables:
            if name in known:
                self.key.append(name)
                self.visit(known[name], Slot(known, name))
        if reason := names.more_than_computes(known):
            raise Unreadable(reason)

    def _home(self, home: type | types.ModuleType) -> None:
        """Remember a class, with those that it extends, or a file, if users wrote it."""
        for space in home.__mro__ if isinstance(home, type) else (home,):
            if id(space) not in self.homes:
                own = vars(space)
                self.homes[id(space)] = (space, {} if _is_theirs(space) else own)

    def members(self) -> None:
        """Read what the code names of the classes and files that it reaches, until nothing new is reached."""
        read: set[tuple[int, str]] = set()
        while True:
            new = [
                (number, name)
                for number, (space, own) in list(self.homes.items())
                for name in sorted(own.keys() & self.named | (_implied(own) if isinstance(space, type) else set()))
                if (number, name) not in read
            ]
            if not new:
                return
            for number, name in new:
                read.add((number, name))
                self.key.append(name)
                self.visit(self.homes[number][1][name], None)

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
            self.visit(forward, None)
        self.contents.append((own, dict(own)))
        for name in PARTS:
            if own[name]:
                self._mapping(own[name])
        for name, value in own.items():
            if name not in INTERNAL and (id(module), name) not in self.uncounted:
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
        self.contents.append((mapping, dict(mapping)))
        self.key.append(len(mapping))
        for name, value in mapping.items():
            self.visit(name, None)
            self.visit(value, Slot(mapping, name))


def _is_theirs(home: type | types.ModuleType) -> bool:
    """Whether a class or file is of a library, which nobody changes meanwhile."""
    file = getattr(home, "__file__", None) if isinstance(home, types.ModuleType) else _file_of(home.__module__)
    return file is not None and is_library(file)


def _file_of(module: str) -> str | None:
    """The file of a module by its name, "" of one that is built in, None of a notebook."""
    found = sys.modules.get(module)
    return getattr(found, "__file__", None) if module == "__main__" or found is None else getattr(found, "__file__", "")


def _implied(own: Mapping[str, Any]) -> set[str]:
    """Methods of a class that may be called without being named."""
    return {
        name
        for name, value in own.items()
        if name.startswith("__") and name not in NEVER_CALLED and isinstance(value, types.FunctionType)
    }
