"""Reads the components of a package from its source, without importing it.

A component's keyword-only parameters are its configuration; those of a dataclass are its fields and those that it
inherits. Importing the file that defines it would import torch, which takes seconds; `node-run --help` must not. So the
source is parsed instead, and only the annotations and defaults of those parameters are evaluated. They may use builtins
and names imported from modules that are cheap to import, such as `node_runner.settings`.
"""

from __future__ import annotations

import ast
import builtins
import functools
import importlib
import importlib.util
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass
from pathlib import Path
from typing import Any

from node_runner.errors import ConfigError


Definition = ast.ClassDef | ast.FunctionDef

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
    """One registered component, as its source declares it.

    docs: its docstring, and those of the classes that it extends, nearest first.
    """

    name: str
    about: str
    module: str
    file: Path
    line: int
    parameters: tuple[Parameter, ...]
    docs: tuple[str, ...]


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
    source = _source(module, file)
    for node in source.tree.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef):
            continue
        calls = [call for call in node.decorator_list if _registers(call, registry)]
        if not calls:
            continue
        lineage = list(_lineage(node, source))
        is_dataclass = isinstance(node, ast.ClassDef) and _dataclass(node) is not None
        parameters = list(_fields(lineage) if is_dataclass else _arguments(node, source))
        docs = tuple(ast.get_docstring(each) or "" for each, _ in lineage)
        first_line = docs[0].split("\n", 1)[0]
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
                docs=docs,
            )


@functools.cache
def _text(file: Path) -> str:
    """The text of a file, kept since every registry asks for each file of a plug-in."""
    return file.read_text(encoding="utf-8")


def _registers(call: ast.expr, registry: str) -> bool:
    return (
        isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr == "register"
        and isinstance(call.func.value, ast.Name)
        and call.func.value.id == registry
    )


def _arguments(node: Definition, source: _Source) -> Iterator[Parameter]:
    """The keyword-only parameters of a function, or of a class's own __init__."""
    function = node
    if isinstance(node, ast.ClassDef):
        inits = [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"]
        if not inits:
            raise ConfigError(
                f"{source.place(node)}: class {node.name} is registered and so needs an __init__ of its own, "
                "or @dataclass(kw_only=True)"
            )
        function = inits[0]
    assert isinstance(function, ast.FunctionDef)
    for argument, default in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True):
        if argument.annotation is None:
            raise ConfigError(
                f"{source.place(node)}: parameter '{argument.arg}' of {node.name} needs a type annotation"
            )
        yield source.parameter(node, argument.arg, argument.annotation, default)


def _fields(lineage: list[tuple[Definition, _Source]]) -> Iterator[Parameter]:
    """The fields of a dataclass, its own first, then those that it inherits, with the nearest default of each."""
    declared = [dict(_own_fields(node, source)) for node, source in lineage if isinstance(node, ast.ClassDef)]
    for depth, own in enumerate(declared):
        for name in own:
            if not any(name in further for further in declared[depth + 1 :]):
                yield next(fields[name] for fields in declared if name in fields)


def _own_fields(node: ast.ClassDef, source: _Source) -> Iterator[tuple[str, Parameter]]:
    decorator = _dataclass(node)
    if decorator is None:
        return
    if "kw_only=True" not in ast.unparse(decorator):
        raise ConfigError(f"{source.place(node)}: the settings of {node.name} are fields: use @dataclass(kw_only=True)")
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            if not ast.unparse(item.annotation).startswith("ClassVar"):
                yield item.target.id, source.parameter(node, item.target.id, item.annotation, item.value)


def _dataclass(node: ast.ClassDef) -> ast.expr | None:
    """The decorator that makes a class a dataclass, if it has one."""
    for decorator in node.decorator_list:
        name = decorator.func if isinstance(decorator, ast.Call) else decorator
        if isinstance(name, ast.Name) and name.id == "dataclass":
            return decorator
    return None


def _lineage(node: Definition, source: _Source) -> Iterator[tuple[Definition, _Source]]:
    """A component and the classes that it extends, nearest first, each with its source: those of its own package or
    of this one.
    """
    yield node, source
    for base in node.bases if isinstance(node, ast.ClassDef) else []:
        name = base.value if isinstance(base, ast.Subscript) else base
        found = source.find_class(name.id) if isinstance(name, ast.Name) else None
        if found is not None:
            yield from _lineage(*found)


@functools.cache
def _source(module: str, file: Path) -> _Source:
    return _Source(module, file)


class _Source:
    """One parsed file, and what the annotations and defaults in it mean."""

    def __init__(self, module: str, file: Path) -> None:
        self._module = module
        self._file = file
        self.tree = ast.parse(_text(file), filename=str(file))
        self._imports = {
            alias.asname or alias.name: (node.module, alias.name)
            for node in self.tree.body
            if isinstance(node, ast.ImportFrom) and node.module and node.level == 0
            for alias in node.names
        }
        self._names = _Names(self._imports)

    def place(self, node: Definition) -> str:
        """Where a definition is, for a message."""
        return f"{self._file}:{node.lineno}"

    def parameter(self, node: Definition, name: str, annotation: ast.expr, default: ast.expr | None) -> Parameter:
        """One setting of what `node` defines."""
        value = REQUIRED if default is None else self._evaluate(default, node)
        if isinstance(value, Field) and value.default_factory is not MISSING:
            value = value.default_factory()
        return Parameter(name, self._evaluate(annotation, node), value)

    def find_class(self, name: str) -> tuple[ast.ClassDef, _Source] | None:
        """The class of a name in this file, wherever it comes from in its package or in this one."""
        for node in self.tree.body:
            if isinstance(node, ast.ClassDef) and node.name == name:
                return node, self
        module, attribute = self._imports.get(name, ("", ""))
        if module.partition(".")[0] not in (self._module.partition(".")[0], __name__.partition(".")[0]):
            return None
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            return None
        return _source(module, Path(spec.origin)).find_class(attribute)

    def _evaluate(self, expression: ast.expr, node: Definition) -> Any:
        try:
            return eval(compile(ast.Expression(expression), self._module, "eval"), {}, self._names)
        except Exception as error:
            text = ast.unparse(expression)
            raise ConfigError(
                f"{self.place(node)}: cannot read '{text}' without running the file: {error!r}"
            ) from error


class _Names(dict[str, Any]):
    """The names that annotations of one file may use, each resolved when it is first asked for."""

    def __init__(self, imports: dict[str, tuple[str, str]]) -> None:
        super().__init__(vars(builtins))
        self._imports = imports

    def __missing__(self, name: str) -> Any:
        if name not in self._imports:
            raise NameError(name)
        module, attribute = self._imports[name]
        self[name] = getattr(importlib.import_module(module), attribute)
        return self[name]
