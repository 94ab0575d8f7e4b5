"""Whether a forward does nothing but compute its result: read from its source, and refused where in doubt."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from types import CodeType
from typing import Any, NamedTuple

import torch
from torch import nn


NAMES = (
    "cat concat concatenate tanh tanh_ sin relu relu_ leaky_relu silu softplus gelu elu sigmoid sigmoid_ ones "
    "ones_like zeros zeros_like full full_like broadcast_to tile reshape unsqueeze pow square mul multiply"
)
FUNCTIONS = frozenset(
    getattr(home, name) for home in (torch, nn.functional) for name in NAMES.split() if hasattr(home, name)
)
"""Functions of torch that may be called."""

METHODS = frozenset(
    "to type_as float double expand expand_as view view_as reshape unsqueeze repeat size dim item contiguous new_ones "
    "new_zeros new_full tanh tanh_ sin relu relu_ sigmoid sigmoid_ pow square mul multiply".split()
)
"""Methods of tensors that may be called."""

READ = frozenset(("shape", "dtype", "device", "ndim"))
"""What may be read of a tensor."""

BUILTINS = frozenset(("len", "zip", "range", "enumerate", "reversed"))

EXPRESSIONS = (
    ast.Name, ast.Attribute, ast.Call, ast.keyword, ast.Constant, ast.Tuple, ast.List, ast.Subscript, ast.Slice,
    ast.UnaryOp, ast.BinOp, ast.expr_context, ast.unaryop, ast.operator,
)  # fmt: skip


class Impure(Exception):
    """A forward that may do more than compute, with the reason."""


class Reads(NamedTuple):
    """What a forward reads of its module, beside submodules: plain values by name, and names in which it counts."""

    values: dict[str, Any]
    counters: frozenset[str]


def reads(module: nn.Module) -> Reads:
    """What a module's forward reads of itself.

    Raises:
        Impure: the forward is not a plain computation.
    """
    kind = type(module)
    if "forward" in vars(module):
        raise Impure("its forward was replaced on the instance")
    if kind.__call__ is not nn.Module.__call__ or kind.__getattr__ is not nn.Module.__getattr__:
        raise Impure("it changes how modules are called or read")
    definition = definition_of(kind.forward)
    reader = _Reader(module, definition, kind.forward)
    for name in reader.counters & set(reader.values):
        raise Impure(f"its forward counts in `self.{name}` and reads it")
    return Reads(reader.values, frozenset(reader.counters))


def definition_of(function: Callable[..., Any]) -> ast.FunctionDef:
    """A forward as it is written.

    Raises:
        Impure: its source is not to be had, or it is no plain function.
    """
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError) as error:
        raise Impure("the source of its forward is not to be had") from error
    try:
        definition = ast.parse(source).body[0]
    except SyntaxError as error:
        raise Impure("the source of its forward is not to be had") from error
    if not isinstance(definition, ast.FunctionDef) or definition.decorator_list:
        raise Impure("its forward is decorated, or no plain function")
    if not _is_of(function, definition):
        raise Impure("the source of its forward is not what runs: its file has changed since")
    return definition


class _Reader:
    """Goes through a forward and raises at the first thing that is not on the lists above."""

    def __init__(self, module: nn.Module, definition: ast.FunctionDef, function: Callable[..., Any]) -> None:
        self.module = module
        self.globals: dict[str, Any] = getattr(function, "__globals__", {})
        self.values: dict[str, Any] = {}
        self.counters: set[str] = set()
        names = [argument.arg for argument in definition.args.args]
        self.self_name = names[0] if names else ""
        stored = (node for node in ast.walk(definition) if isinstance(node, ast.Name))
        self.arguments = frozenset(names[1:])
        self.locals = {*names, *(node.id for node in stored if isinstance(node.ctx, ast.Store))}
        self._block(definition.body)

    def _block(self, statements: list[ast.stmt]) -> None:
        for statement in statements:
            match statement:
                case ast.Expr(value=ast.Constant()) | ast.Pass():
                    pass
                case ast.Assign(targets=targets, value=value) if all(map(_binds, targets)):
                    self._expression(value)
                case ast.AnnAssign(target=ast.Name(), value=value) if value is not None:
                    self._expression(value)
                case ast.Return(value=value) if value is not None:
                    self._expression(value)
                case ast.For(target=target, iter=values, body=body, orelse=[]) if _binds(target):
                    self._expression(values)
                    self._block(body)
                case ast.AugAssign(
                    target=ast.Attribute(value=owner, attr=name), op=ast.Add(), value=ast.Constant(1)
                ) if self._is_self(owner) and self._counts(name):
                    self.counters.add(name)
                case ast.If(test=test, body=body, orelse=orelse):
                    self._test(test)
                    self._block(body)
                    self._block(orelse)
                case _:
                    raise Impure(f"its forward may do more than compute: `{_line(statement)}`")

    def _counts(self, name: str) -> bool:
        """Whether self.name is a whole number and nothing else hears of its change."""
        kind = type(self.module)
        plain = kind.__setattr__ is nn.Module.__setattr__ and not hasattr(getattr(kind, name, None), "__set__")
        return plain and type(vars(self.module).get(name)) is int

    def _test(self, test: ast.expr) -> None:
        """A test of a plain attribute, or of a number of dimensions: the same whatever the state and the time."""
        inner = test.operand if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not) else test
        if isinstance(inner, ast.Compare) and all(map(self._is_rank, (inner.left, *inner.comparators))):
            return
        if not (isinstance(inner, ast.Attribute) and self._is_self(inner.value)):
            raise Impure(f"its forward chooses by more than a flag of its own: `if {_line(test)}`")
        self._own(inner.attr)

    def _is_rank(self, node: ast.expr) -> bool:
        """A number, or the number of dimensions of an argument: y.ndim, y.dim(), len(y.shape) or len(y.size())."""
        match node:
            case ast.Constant(value=int()):
                return True
            case ast.Call(func=ast.Name("len"), args=[
                ast.Attribute(ast.Name(name), "shape") | ast.Call(ast.Attribute(ast.Name(name), "size"), [], [])
            ]):  # fmt: skip
                return name in self.arguments and "len" not in self.globals
            case ast.Attribute(ast.Name(name), "ndim") | ast.Call(ast.Attribute(ast.Name(name), "dim"), [], []):
                return name in self.arguments
        return False

    def _expression(self, expression: ast.expr) -> None:
        for node in ast.walk(expression):
            if not isinstance(node, EXPRESSIONS):
                raise Impure(f"its forward may do more than compute: `{_line(expression)}`")
            if isinstance(node, ast.Call):
                self._call(node)
            elif isinstance(node, ast.Attribute):
                self._attribute(node)
            elif isinstance(node, ast.Name):
                self._name(node)

    def _call(self, node: ast.Call) -> None:
        called = node.func
        if isinstance(called, ast.Name):
            if called.id in self.locals or (called.id in BUILTINS and called.id not in self.globals):
                return
            if _is_function(self.globals.get(called.id)):
                return
        elif isinstance(called, ast.Attribute):
            found = self._global(called)
            if found is not None:
                if _is_function(found):
                    return
            elif self._is_self(called.value) or called.attr in METHODS or self._below_self(called):
                return
        elif isinstance(called, ast.Subscript):  # self.layers[0](y)
            return
        raise Impure(f"its forward calls what may do more than compute: `{_line(node)}`")

    def _name(self, node: ast.Name) -> None:
        known = node.id in self.locals or (node.id in BUILTINS and node.id not in self.globals)
        found = self.globals.get(node.id)
        if not (known or _is_function(found) or _is_torch_module(found)):
            raise Impure(f"its forward uses `{node.id}`, which may change")

    def _attribute(self, node: ast.Attribute) -> None:
        if self._is_self(node.value):
            self._own(node.attr)
        elif node.attr not in READ | METHODS and self._global(node) is None and not self._below_self(node):
            raise Impure(f"its forward reads what may do more than compute: `{_line(node)}`")

    def _below_self(self, node: ast.Attribute) -> bool:
        """self.a.b, where it names a module."""
        path = []
        inner: ast.expr = node
        while isinstance(inner, ast.Attribute):
            path.append(inner.attr)
            inner = inner.value
        found: Any = self.module
        for name in reversed(path):
            found = found._modules.get(name) if isinstance(found, nn.Module) else None
        return self._is_self(inner) and isinstance(found, nn.Module)

    def _own(self, name: str) -> None:
        """self.name: a submodule, a plain value, or a function of torch."""
        if name in self.module._modules:
            return
        missing = object()
        value = vars(self.module).get(name, missing)
        if value is missing:
            value = inspect.getattr_static(type(self.module), name, missing)
        if not (isinstance(value, bool | int | float | str | None) or _is_function(value)):
            raise Impure(f"its forward uses `self.{name}`, which is neither a layer nor a plain value")
        self.values[name] = value

    def _is_self(self, node: ast.expr) -> bool:
        return isinstance(node, ast.Name) and node.id == self.self_name

    def _global(self, node: ast.expr) -> Any:
        """What torch.tanh, nn.functional.relu and the like name, or None."""
        if isinstance(node, ast.Name):
            return None if node.id in self.locals else self.globals.get(node.id)
        if isinstance(node, ast.Attribute):
            inner = self._global(node.value)
            return getattr(inner, node.attr, None) if _is_torch_module(inner) else None
        return None


def _is_of(function: Callable[..., Any], definition: ast.FunctionDef) -> bool:
    """Whether a function has a definition's names, and not those of what stood in its place before."""
    module = compile(ast.Module([definition], []), "<forward>", "exec", dont_inherit=True)
    written = next(const for const in module.co_consts if isinstance(const, CodeType))
    code = getattr(function, "__code__", None)
    # Not the code itself: a name that its file imports is compiled in another way.
    return code is not None and (code.co_names, code.co_varnames) == (written.co_names, written.co_varnames)


def _binds(target: ast.expr) -> bool:
    """Whether an assignment goes to local names only."""
    if isinstance(target, ast.Tuple):
        return all(map(_binds, target.elts))
    return isinstance(target, ast.Name)


def _is_function(value: Any) -> bool:
    """Whether it is one of the functions above."""
    return callable(value) and not isinstance(value, nn.Module) and value in FUNCTIONS


def _is_torch_module(value: Any) -> bool:
    """Whether it is torch, torch.nn.functional or another of torch's files."""
    return inspect.ismodule(value) and value.__name__.split(".")[0] == "torch"


def _line(node: ast.AST) -> str:
    """The node's source on one line, cut short."""
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
