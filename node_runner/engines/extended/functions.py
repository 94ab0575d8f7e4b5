"""`odeint` and `odeint_adjoint` of torchdiffeq, with our methods in their table.

torchdiffeq looks methods up in a table of its own, which other code of the same process uses too. Its package is
therefore imported a second time under another name, and only the table of that copy is extended: the semantics
are torchdiffeq's to the letter, and torchdiffeq itself stays as it is.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from node_runner.engines.extended import adaptive_implicit, explicit, implicit, leapfrog, original
from node_runner.tableaux import IMPLICIT, TSIT5


COPY = "node_runner.engines.extended._torchdiffeq"

METHODS = frozenset({"tsit5", "leapfrog", *IMPLICIT})
"""The methods that are ours, whether or not the installed torchdiffeq has methods of these names."""


@functools.cache
def package() -> ModuleType:
    """A copy of torchdiffeq whose table has our methods as well."""
    spec = original.SPEC
    assert spec is not None and spec.origin is not None, "a package of files"
    own = importlib.util.spec_from_file_location(
        COPY, spec.origin, submodule_search_locations=list(spec.submodule_search_locations or ())
    )
    assert own is not None and own.loader is not None
    copy = importlib.util.module_from_spec(own)
    sys.modules[COPY] = copy  # its submodules find their parent here
    own.loader.exec_module(copy)
    table, common, misc, on_grid = part("odeint").SOLVERS, part("rk_common"), part("misc"), part("solvers")
    table["tsit5"] = explicit.make_solver("tsit5", 5, TSIT5, common)
    table["leapfrog"] = leapfrog.make_solver(on_grid, misc)
    for name, method in IMPLICIT.items():
        make, loops = (adaptive_implicit.make_solver, common) if method.error else (implicit.make_solver, on_grid)
        table[name] = make(name, method, loops, misc)
    return copy


def part(name: str) -> ModuleType:
    """A module of the copy, such as rk_common."""
    return sys.modules[f"{COPY}._impl.{name}"]


def methods() -> frozenset[str]:
    """Every method of the extended table."""
    package()
    return frozenset(part("odeint").SOLVERS)


def odeint(*arguments: Any, **more: Any) -> Any:
    """`torchdiffeq.odeint`, with our methods too."""
    function: Callable[..., Any] = package().odeint
    return function(*arguments, **more)


def odeint_adjoint(*arguments: Any, **more: Any) -> Any:
    """`torchdiffeq.odeint_adjoint`, with our methods too."""
    function: Callable[..., Any] = package().odeint_adjoint
    return function(*arguments, **more)
