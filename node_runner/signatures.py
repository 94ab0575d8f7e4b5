"""Reads the components of a package from its source, without importing it.

A component's keyword-only parameters are its configuration. Importing the file that defines it would
import torch, which takes seconds; `node-run --help` must not. So the source is parsed instead, and
only the annotations and defaults of those parameters are evaluated. They may use builtins and names
imported from modules that are cheap to import, such as `node_runner.settings`.
"""

from __future__ import annotations

import ast
import builtins
import functools
import importlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node_runner.errors import ConfigError


REQUIRED = object()
"""The default of a parameter that must be given."""


@dataclass(frozen=True)
class Parameter:
    """One setting of a component: its name, its type and its default (`REQUIRED` for none)."""

    name: str
    annotation: Any
    default: Any


@dataclass(frozen=True)
class Signature:
    """One registered component, as its source declares it."""

    name: str
    about: str
    module: str
    file: Path
    line: int
    parameters: tuple[Parameter, ...]


def source_files(package: str) -> Iterator[tuple[str, Path]]:
    """(module name, file) of `package` and every module below it, found without importing them.

    Raises:
        ConfigError: no such package or module.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ConfigError(f"cannot find the Python module '{package}' to read components from")
    origin = Path(spec.origin)
    yield package, origin
    if spec.submodule_search_locations is None:
        return
    for file in sorted(origin.parent.rglob("*.py")):
        parts = file.relative_to(origin.parent).with_suffix("").parts
        if parts[-1] != "__init__":
            yield ".".join((package, *parts)), file


def read_signatures(module: str, file: Path, registry: str) -> Iterator[Signature]:
    """Every `@REGISTRY.register(...)` in one source file.

    Args:
        module: dotted name of the file.
        file: its path.
        registry: the variable that the decorator names, such as DATASETS.

    Raises:
        ConfigError: a parameter has no annotation, or one that cannot be evaluated here.
    """
    if f"{registry}.register" not in _text(file):
        return
    tree = _tree(file)
    names = _Names(tree, module)
    for node in tree.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef):
            continue
        calls = [call for call in node.decorator_list if _registers(call, registry)]
        if not calls:
            continue
        parameters = list(_parameters(node, names, f"{file}:{node.lineno}"))
        first_line = (ast.get_docstring(node) or "").split("\n", 1)[0]
        for call in calls:
            assert isinstance(call, ast.Call)
            literals = [ast.literal_eval(argument) for argument in call.args]
            bound = {keyword.arg for keyword in call.keywords}
            yield Signature(
                name=literals[0],
                about=literals[1] if len(literals) > 1 else first_line,
                module=module,
                file=file,
                line=node.lineno,
                parameters=tuple(p for p in parameters if p.name not in bound),
            )


@functools.cache
def _text(file: Path) -> str:
    """Kept, since every registry asks each file of a plug-in."""
    return file.read_text(encoding="utf-8")


@functools.cache
def _tree(file: Path) -> ast.Module:
    return ast.parse(_text(file), filename=str(file))


def _registers(call: ast.expr, registry: str) -> bool:
    return (
        isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr == "register"
        and isinstance(call.func.value, ast.Name)
        and call.func.value.id == registry
    )


def _parameters(node: ast.ClassDef | ast.FunctionDef, names: _Names, where: str) -> Iterator[Parameter]:
    if isinstance(node, ast.ClassDef):
        inits = [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"]
        if not inits:
            raise ConfigError(f"{where}: class {node.name} is registered and so needs an __init__ of its own")
        arguments = inits[0].args
    else:
        arguments = node.args
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        if argument.annotation is None:
            raise ConfigError(f"{where}: parameter '{argument.arg}' of {node.name} needs a type annotation")
        yield Parameter(
            argument.arg,
            names.evaluate(argument.annotation, where),
            REQUIRED if default is None else names.evaluate(default, where),
        )


class _Names(dict[str, Any]):
    """The names that annotations of one file may use, each resolved when it is first asked for."""

    def __init__(self, tree: ast.Module, module: str) -> None:
        super().__init__(vars(builtins))
        self._module = module
        self._imports: dict[str, tuple[str, str]] = {}
        for node in tree.body:
            if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                for alias in node.names:
                    self._imports[alias.asname or alias.name] = (node.module, alias.name)

    def __missing__(self, name: str) -> Any:
        if name not in self._imports:
            raise NameError(name)
        module, attribute = self._imports[name]
        self[name] = getattr(importlib.import_module(module), attribute)
        return self[name]

    def evaluate(self, node: ast.expr, where: str) -> Any:
        try:
            return eval(compile(ast.Expression(node), self._module, "eval"), {}, self)
        except Exception as error:
            text = ast.unparse(node)
            raise ConfigError(f"{where}: cannot read '{text}' without running the file: {error!r}") from error
