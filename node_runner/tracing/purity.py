"""Whether a forward does nothing but compute its result: read from its source, and refused where in doubt."""

from __future__ import annotations

import ast
import inspect
from collections import ChainMap
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from node_runner.tracing.closed import bound, closure
from node_runner.tracing.definition import Impure, definition_of


NAMES = (
    "cat concat concatenate tanh tanh_ sin relu relu_ leaky_relu silu softplus gelu elu sigmoid sigmoid_ ones "
    "ones_like zeros zeros_like full full_like broadcast_to tile reshape unsqueeze pow square mul multiply "
    "neg negative add sub subtract div divide true_divide"
)
FUNCTIONS = frozenset(
    getattr(home, name) for home in (torch, nn.functional) for name in NAMES.split() if hasattr(home, name)
)
"""Functions of torch that may be called."""

METHODS = frozenset(
    "to type_as float double expand expand_as view view_as reshape unsqueeze repeat size dim item contiguous new_ones "
    "new_zeros new_full tanh tanh_ sin relu relu_ sigmoid sigmoid_ pow square mul multiply neg negative add sub "
    "subtract div divide true_divide".split()
)
"""Methods of tensors that may be called."""

READ = frozenset(("shape", "dtype", "device", "ndim"))
"""What may be read of a tensor."""

BUILTINS = frozenset(("len", "zip", "range", "enumerate", "reversed"))

EXPRESSIONS = (
    ast.Name, ast.Attribute, ast.Call, ast.keyword, ast.Constant, ast.Tuple, ast.List, ast.Subscript, ast.Slice,
    ast.UnaryOp, ast.BinOp, ast.expr_context, ast.unaryop, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow,
)  # fmt: skip
"""Without those by which a number could be the same for some sizes of a batch and another for others."""


class Reads(NamedTuple):
    """What a forward reads of its module, beside submodules: plain values by name, and names in which it counts.

    outside: functions and files of torch, by the global names that it has for them. known: all global names.
    """

    values: dict[str, Any]
    counters: frozenset[str]
    outside: dict[str, Any]
    known: Mapping[str, Any]


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
    forward = kind.forward
    definition = definition_of(forward)
    for value in (*(forward.__defaults__ or ()), *(forward.__kwdefaults__ or {}).values()):
        if not _is_plain(value):
            raise Impure("its forward has a default that is neither a plain value nor a function of torch")
    reader = _Reader(module, definition, forward.__globals__)
    for name in reader.counters & set(reader.values):
        raise Impure(f"its forward counts in `self.{name}` and reads it")
    return Reads(reader.values, frozenset(reader.counters), reader.outside, reader.globals)


def check_function(function: Callable[..., Any]) -> None:
    """Whether a plain function, a method or a call of an object does nothing but compute its result.

    Raises:
        Impure: it may do more.
    """
    owner, code = bound(function)
    if code is None:
        raise Impure("the source of its forward is not to be had")
    if code.__defaults__ or code.__kwdefaults__:
        raise Impure("its arguments have defaults, which may change")
    kind = type(owner)
    if not isinstance(owner, nn.Module) and any(hasattr(kind, n) for n in ("__getattr__", "__slots__")):
        raise Impure("it changes how objects are read")
    known = ChainMap(closure(code), code.__globals__)
    reader = _Reader(owner, definition_of(code), known, method=owner is not None)
    if reader.counters:
        raise Impure(f"its forward may do more than compute: `self.{min(reader.counters)} += 1`")


class _Reader:
    """Goes through a forward and raises at the first thing that is not on the lists above."""

    def __init__(
        self, module: Any, definition: ast.FunctionDef, known: Mapping[str, Any], *, method: bool | None = None
    ) -> None:
        """Read it.

        Args:
            module: or other object, whose method it is.
            definition: of the method or function.
            known: what names stand for that are not its own.
            method: whether its first argument is the object (None: it is, and the method is the module's forward,
                whose global names may not be those of modules and numbers: nothing would see them change).
        """
        self.module = module
        self.globals = known
        self.closed = method is not None
        self.values: dict[str, Any] = {}
        self.counters: set[str] = set()
        self.outside: dict[str, Any] = {}
        names = [argument.arg for argument in definition.args.args]
        self.self_name = names.pop(0) if names and method is not False else None
        stored = (node for node in ast.walk(definition) if isinstance(node, ast.Name))
        self.arguments = frozenset(names)
        own = [] if self.self_name is None else [self.self_name]
        self.locals = {*own, *names, *(node.id for node in stored if isinstance(node.ctx, ast.Store))}
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
        kind: Any = type(self.module)
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
            if (
                (called.id in self.locals and called.id != self.self_name)
                or self._is_part(called)
                or (called.id in BUILTINS and called.id not in self.globals)
            ):
                return
            if _is_function(self.globals.get(called.id)):
                return
        elif isinstance(called, ast.Attribute):
            found = self._global(called)
            if found is not None:
                if _is_function(found):
                    return
            elif self._is_self(called.value) or called.attr in METHODS or self._is_part(called):
                return
        elif isinstance(called, ast.Subscript):  # self.layers[0](y)
            return
        raise Impure(f"its forward calls what may do more than compute: `{_line(node)}`")

    def _name(self, node: ast.Name) -> None:
        known = node.id in self.locals or (node.id in BUILTINS and node.id not in self.globals)
        found = self.globals.get(node.id)
        plain = self.closed and isinstance(found, nn.Module | bool | int | float | str)
        if not (known or plain or _is_function(found) or _is_torch_module(found)):
            raise Impure(f"its forward uses `{node.id}`, which may change")
        if not known:
            self.outside[node.id] = found

    def _attribute(self, node: ast.Attribute) -> None:
        if self._is_self(node.value):
            self._own(node.attr)
        elif node.attr not in READ | METHODS and self._global(node) is None and not self._is_part(node):
            raise Impure(f"its forward reads what may do more than compute: `{_line(node)}`")

    def _is_part(self, node: ast.expr) -> bool:
        """self.a.b, or in a function a.b, where it names a module."""
        path = []
        while isinstance(node, ast.Attribute):
            path.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return False
        if self._is_self(node):
            found = self.module
        else:
            found = self.globals.get(node.id) if self.closed and node.id not in self.locals else None
        for name in reversed(path):
            if found is self.module and not isinstance(found, nn.Module):
                found = vars(found).get(name)
            else:
                found = found._modules.get(name) if isinstance(found, nn.Module) else None
        return isinstance(found, nn.Module) and (bool(path) or not self._is_self(node))

    def _own(self, name: str) -> None:
        """self.name: a submodule, a plain value, or a function of torch."""
        if name in getattr(self.module, "_modules", {}):
            return
        missing = object()
        value = vars(self.module).get(name, missing)
        if value is missing:
            value = inspect.getattr_static(type(self.module), name, missing)
        if isinstance(value, nn.Module):  # of an object that is none
            return
        if not _is_plain(value):
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


def _binds(target: ast.expr) -> bool:
    """Whether an assignment goes to local names only."""
    if isinstance(target, ast.Tuple):
        return all(map(_binds, target.elts))
    return isinstance(target, ast.Name)


def _is_function(value: Any) -> bool:
    """Whether it is one of the functions above."""
    return callable(value) and not isinstance(value, nn.Module) and value in FUNCTIONS


def _is_plain(value: Any) -> bool:
    """Whether it is a plain value or one of the functions above."""
    return isinstance(value, bool | int | float | str | None) or _is_function(value)


def _is_torch_module(value: Any) -> bool:
    """Whether it is torch, torch.nn.functional or another of torch's files."""
    return inspect.ismodule(value) and value.__name__.split(".")[0] == "torch"


def _line(node: ast.AST) -> str:
    """The node's source on one line, cut short."""
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
