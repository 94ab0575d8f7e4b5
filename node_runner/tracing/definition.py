"""A function as it is written: its source, if that is what runs."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from types import CodeType
from typing import Any


class Impure(Exception):
    """A forward that may do more than compute, with the reason."""


def definition_of(function: Callable[..., Any]) -> ast.FunctionDef:
    """A forward as it is written.

    Raises:
        Impure: its source is not to be had, or it is no plain function.
    """
    try:
        lines, _ = inspect.findsource(function)
        tree = ast.parse("".join(lines))
    except (OSError, TypeError, SyntaxError) as error:
        raise Impure("the source of its forward is not to be had") from error
    written = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.Lambda)]
    found = [node for node in written if _begins(node) == function.__code__.co_firstlineno]
    found = [node for node in found if isinstance(node, ast.Lambda) == (function.__name__ == "<lambda>")]
    if len(found) > 1:  # of several in a line
        found = [node for node in found if _holds(node, function.__code__)]
    if not found:
        raise Impure("the source of its forward is not what runs: its file has changed since")
    definition = min(found, key=lambda node: len(ast.unparse(node)))
    if isinstance(definition, ast.Lambda):
        definition = _named(definition)
    if definition.decorator_list:
        raise Impure("its forward is decorated, or no plain function")
    if not _is_of(function, definition):
        raise Impure("the source of its forward is not what runs: its file has changed since")
    return definition


def _begins(node: ast.FunctionDef | ast.Lambda) -> int:
    """The line that its code says it begins in."""
    decorators = node.decorator_list if isinstance(node, ast.FunctionDef) else []
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _holds(node: ast.FunctionDef | ast.Lambda, code: CodeType) -> bool:
    """Whether all of a code was written within a node."""
    begin, end = (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)
    places = [(line, column) for line, _, column, _ in code.co_positions() if line and column]
    return all(begin <= place < end for place in places)


def _named(node: ast.Lambda) -> ast.FunctionDef:
    """A lambda as a function."""
    definition = ast.parse("def forward(): pass").body[0]
    assert isinstance(definition, ast.FunctionDef)
    definition.args, definition.body = node.args, [ast.Return(node.body)]
    return ast.fix_missing_locations(ast.copy_location(definition, node))


def _is_of(function: Callable[..., Any], definition: ast.FunctionDef) -> bool:
    """Whether a function has a definition's names, and not those of what stood in its place before."""
    code: CodeType | None = getattr(function, "__code__", None)
    if code is None:
        return False
    around = ast.parse(f"def around({', '.join(code.co_freevars)}): pass").body[0]
    assert isinstance(around, ast.FunctionDef)
    around.body = [definition]
    written = compile(ast.Module([around], []), "<forward>", "exec", dont_inherit=True)
    # What its defaults and bounds of types compute comes before it, and a generic one is in a scope of its own.
    for _ in range(3 if getattr(definition, "type_params", ()) else 2):
        *_, written = (const for const in written.co_consts if isinstance(const, CodeType))
    # Not the code itself: a name that its file imports is compiled in another way.
    return all(getattr(code, names) == getattr(written, names) for names in ("co_names", "co_varnames", "co_freevars"))
