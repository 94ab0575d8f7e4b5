"""What a piece of code names: global variables, whose values it depends on, and attributes."""

from __future__ import annotations

import builtins
import dis
import functools
import os
import sys
import sysconfig
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch


FORBIDDEN = frozenset(
    "print open input exec eval compile __import__ breakpoint globals locals vars exit quit help id delattr".split()
)
"""Functions of Python that do more than compute, or look at what a graph does not have."""

COMPUTING = frozenset(
    "abc cmath collections contextlib copy dataclasses enum functools itertools math numbers operator types "
    "typing".split()
)
"""Modules of Python whose functions only compute."""

LIBRARIES = tuple(
    f"{folder}{os.sep}"
    for folder in {
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        str(Path(torch.__file__).parent),
        str(Path(__file__).parents[1]),
    }
)
"""Folders of code that does not change while a process runs."""


class Naming(NamedTuple):
    """What a code names.

    variables: global names that are loaded, sorted. attributes: that are asked for. paths: global names, and those of
    a closure, with the attributes that are asked for in turn: a.b.c as ("a", "b", "c"). imports: whether it imports.
    """

    variables: tuple[str, ...]
    attributes: frozenset[str]
    paths: frozenset[tuple[str, ...]]
    imports: bool

    def more_than_computes(self, known: Mapping[str, Any]) -> str | None:
        """What the code names that does more than compute, in words that complete "the field ...".

        Args:
            known: values of global names.
        """
        for name in self.variables:
            value = known.get(name, getattr(builtins, name, None))
            if name in FORBIDDEN and value is getattr(builtins, name):
                return f"calls `{name}`, which compiled code would not"
            if isinstance(value, types.ModuleType):
                root = value.__name__.split(".")[0]
                if root in sys.stdlib_module_names and root not in COMPUTING:
                    return f"uses the module `{root}`, which may do more than compute"
        return "imports something when it is called" if self.imports else None


@functools.lru_cache(maxsize=4096)
def naming(code: types.CodeType) -> Naming:
    """What a code and the functions within it name."""
    variables: set[str] = set()
    attributes: set[str] = set()
    paths: list[tuple[str, ...]] = []
    imports = follows = False
    for instruction in dis.get_instructions(code):
        kind, name = instruction.opname, instruction.argval
        if kind in ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR"):
            attributes.add(name)
            if follows:
                paths[-1] = (*paths[-1], name)
            continue
        follows = kind in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF")
        if follows:
            paths.append((name,))
        if kind in ("LOAD_GLOBAL", "LOAD_NAME"):
            variables.add(name)
        imports |= kind == "IMPORT_NAME"
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            below = naming(inner)
            variables |= set(below.variables)
            attributes |= below.attributes
            paths += below.paths
            imports |= below.imports
    return Naming(tuple(sorted(variables)), frozenset(attributes), frozenset(paths), imports)


@functools.lru_cache(maxsize=4096)
def is_library(file: str) -> bool:
    """Whether a file is of Python, of an installed package or of this one."""
    return file == "" or file.startswith(LIBRARIES) or file.startswith("<frozen")
