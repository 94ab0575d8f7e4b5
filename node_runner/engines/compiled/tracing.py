"""A function of tensors, written down as a graph of operations without side effects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor, fx
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode, ShapeEnv

from node_runner.engines.compiled.convolutions import CHANNELS_LAST, ConstantChannels, gains, inside


Function = Callable[..., Any]
"""(lists of tensors) -> tensors, nested in lists at will."""


FEW_ROWS = 4
MOST_PRODUCTS = 2**18
"""Products of matrices up to these are written out on the CPU: a call of the library costs more than they do.

With a batch of one that makes steps 1.4 times as fast (one-spiral of experiments/benchmarks/engines); with a batch of
64 the library is faster, even where only two columns are summed over.
"""


class Untraceable(Exception):
    """What the function does cannot be written down, in words that complete "the field ..."."""


def fake_mode() -> FakeTensorMode:
    """A mode whose tensors have shapes and no numbers."""
    # A loop asks for symbols, although it needs none.
    return FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv(), static_shapes=True)


def trace(
    function: Function, groups: Sequence[Sequence[Tensor]], mode: FakeTensorMode, *, decompose: bool = True
) -> fx.GraphModule:
    """The graph of `function(*groups)`, whose arguments are lists of tensors; its own arguments and results are flat.

    Autograd runs while the function is traced, so that it may differentiate inside, to any order; what is written
    down are the operations of the derivatives. In-place operations are made functional in a second pass, since
    functionalisation forbids autograd while it traces.

    Raises:
        Untraceable: it looks at numbers, draws random ones, writes to its inputs or reads tensors unknown.
    """
    from torch._inductor.decomposition import select_decomp_table

    fake = [[mode.from_tensor(tensor.detach()) for tensor in group] for group in groups]
    try:
        with mode, ConstantChannels():
            first = make_fx(function, tracing_mode="real")(*fake)
    except torch._subclasses.fake_tensor.DataDependentOutputException as error:
        raise Untraceable("decides by the numbers in a tensor what it computes") from error
    except GuardOnDataDependentSymNode as error:
        raise Untraceable("decides by the numbers in a tensor what it computes") from error
    _check(first)
    with mode, torch.no_grad():
        table = dict(select_decomp_table()) | WRITTEN_OUT if decompose else {}
        second: Function = first
        if decompose and gains(first):
            second, table = inside(first), table | CHANNELS_LAST
        graph = make_fx(torch.func.functionalize(second), decomposition_table=table, tracing_mode="real")(*fake)
    inputs = set(graph.graph.find_nodes(op="placeholder"))
    if any(node.target is torch.ops.aten.copy_.default and node.args[0] in inputs for node in graph.graph.nodes):
        raise Untraceable("writes to its own buffers or parameters")
    # The second pass forgets the names, by which a partition tells primals from tangents.
    named = first.graph.find_nodes(op="placeholder")
    for node, original in zip(graph.graph.find_nodes(op="placeholder"), named, strict=True):
        node._rename(original.name)
        node.target = original.target
    # Inductor hands arguments and results over flat.
    output = graph.graph.output_node()
    output.args = (tuple(pytree.arg_tree_leaves(output.args)),)
    graph.graph.set_codegen(fx.graph.CodeGen())
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _product(a: Tensor, b: Tensor) -> Tensor:
    return (a.unsqueeze(-1) * b.unsqueeze(-3)).sum(-2)


def _tiny(a: Tensor, b: Tensor) -> bool:
    few = a.shape[-2] <= FEW_ROWS or a.shape[-1] == 1
    return few and a.numel() * b.shape[-1] <= MOST_PRODUCTS and a.device.type == "cpu" and a.dtype.is_floating_point


def _mm(a: Tensor, b: Tensor) -> Any:
    return _product(a, b) if _tiny(a, b) else NotImplemented


def _addmm(c: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Any:
    return c + _product(a, b) if _tiny(a, b) and beta == alpha == 1 else NotImplemented


def _check(graph: fx.GraphModule) -> None:
    """Refuse what a graph would repeat although it is to change."""
    for node in graph.graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded in node.target.tags:
            raise Untraceable("draws random numbers when it is called")
        if node.op == "get_attr" and not all(_copies(user) for user in node.users):
            raise Untraceable("reads a tensor that is kept outside of it")


def _copies(node: fx.Node) -> bool:
    """Whether a node makes a tensor from a literal, as `torch.tensor([1.0])` does."""
    return node.target in (torch.ops.aten.lift_fresh_copy.default, torch.ops.aten.lift_fresh.default)


WRITTEN_OUT = {torch.ops.aten.mm.default: _mm, torch.ops.aten.bmm.default: _mm, torch.ops.aten.addmm.default: _addmm}
"""Decompositions that leave to the library what it does better."""
