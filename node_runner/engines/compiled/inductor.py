"""Graphs made into machine code by Inductor. Every private name of torch that the engine needs is in here.

`torch.compile` would do, at five times the cost of a call: what its guards check is known here.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import logging
import operator
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch._subclasses import FakeTensorMode

from node_runner.engines.compiler import LOOKED_FOR, compiler


Compiled = Callable[[list[Tensor]], Sequence[Tensor]]

NEEDED = (
    ("torch._inductor.compile_fx", "compile_fx_inner"),
    ("torch._inductor.config", "patch"),
    ("torch._inductor.decomposition", "select_decomp_table"),
    ("torch._inductor.inductor_prims", "force_stride_order"),
    ("torch._functorch.partitioners", "min_cut_rematerialization_partition"),
    ("torch._guards", "TracingContext"),
    ("torch._subclasses", "FakeTensorMode"),
    ("torch._higher_order_ops.while_loop", "while_loop_op"),
    ("torch._C._functorch", "_set_vmap_fallback_enabled"),
)


@functools.cache
def missing(device: str) -> str | None:
    """What a compilation would lack, or None."""
    if device not in ("cpu", "cuda"):
        return f"the state is on {device}, and this engine knows the CPU and CUDA"
    for module, name in NEEDED:
        if not hasattr(importlib.import_module(module), name):
            return f"torch {torch.__version__} lacks {module}.{name}"
    if device == "cpu" and compiler() is None:
        return f"there is no C++ compiler ({LOOKED_FOR})"
    if device == "cuda" and importlib.util.find_spec("triton") is None:
        return "Triton, which compiles for CUDA, is not installed"
    return None


def _import_setuptools() -> None:
    """Import what torch's builder of C++ imports, where a plain import would fail.

    setuptools brings a distutils of its own, and insists on it, unless it is told to use the standard library's:
    up to Python 3.11 a process that has looked for pip gets only that one.
    """
    if "setuptools" in sys.modules:
        return
    with warnings.catch_warnings(), contextlib.suppress(ImportError):
        warnings.simplefilter("ignore")
        try:
            importlib.import_module("setuptools")
        except AssertionError:
            os.environ["SETUPTOOLS_USE_DISTUTILS"] = "stdlib"
            try:
                importlib.import_module("setuptools")
            finally:
                del os.environ["SETUPTOOLS_USE_DISTUTILS"]


def compile_graph(graph: fx.GraphModule, inputs: Sequence[Tensor], mode: FakeTensorMode) -> Compiled:
    """Machine code of a graph, for inputs of these sizes and strides. It may empty the list that it is called with."""
    from torch._guards import TracingContext, tracing
    from torch._inductor import config
    from torch._inductor.compile_fx import compile_fx_inner

    _import_setuptools()
    # It would say on a machine without a GPU that there is none.
    logging.getLogger("torch.utils.cpp_extension").addFilter(lambda record: "No CUDA runtime" not in record.msg)
    cpu = inputs[0].device.type == "cpu"
    settings: dict[str, Any] = {
        # Calls of the C++ wrapper cost a fourth of those of the Python one.
        "cpp_wrapper": cpu,
        # One graph's outputs are another's inputs, and strides are as they were traced.
        "layout_optimization": False,
        # ATen's tanh goes through memory and is not vectorised with what surrounds it.
        "cpp.use_decompose_tanh": cpu and all(i.dtype is torch.float32 for i in inputs),
    }
    fake = [mode.from_tensor(tensor.detach()) for tensor in inputs]
    with (
        config.patch(settings), mode, torch.no_grad(), tracing(TracingContext(mode)), warnings.catch_warnings(),
    ):  # fmt: skip
        warnings.simplefilter("ignore")  # torch's own, about its own modules
        compiled: Any = compile_fx_inner(graph, fake, cpp_wrapper=cpu)
    # Around it are only records for profilers of compilations.
    inner: Compiled = getattr(compiled, "current_callable", None) or compiled
    return inner


def loop_graph(
    ahead: fx.GraphModule,
    body: fx.GraphModule,
    carried: Sequence[Tensor],
    others: Sequence[Tensor],
    mode: FakeTensorMode,
) -> fx.GraphModule:
    """The graph of `while ahead(*carried, *others): carried = body(*carried, *others)`, whose results are `carried`."""
    from torch._higher_order_ops.while_loop import while_loop_op

    root, graph = nn.Module(), fx.Graph()
    root.ahead, root.body = ahead, body
    nodes = []
    for i, tensor in enumerate((*carried, *others)):
        nodes.append(graph.placeholder(f"input_{i}"))
        nodes[-1].meta["val"] = mode.from_tensor(tensor.detach())
    parts = (graph.get_attr("ahead"), graph.get_attr("body"))
    count = len(carried)
    loop = graph.call_function(while_loop_op, (*parts, tuple(nodes[:count]), tuple(nodes[count:])))
    loop.meta["val"] = tuple(node.meta["val"] for node in nodes[:count])
    results = []
    for i in range(count):
        results.append(graph.call_function(operator.getitem, (loop, i)))
        results[-1].meta["val"] = nodes[i].meta["val"]
    graph.output(tuple(results))
    return fx.GraphModule(root, graph)


def in_memory(x: Tensor) -> Tensor:
    """x, in a graph: written down once in this order of its elements, not computed again by each that reads it."""
    from torch._inductor import inductor_prims

    whole = x.contiguous() if 0 in x.stride() else x
    written: Tensor = inductor_prims.force_stride_order(whole, whole.stride())
    return written


class Unbatched(Exception):
    """An operation that cannot be done to many states together."""


@contextlib.contextmanager
def batched() -> Iterator[None]:
    """Within this block vmap refuses what it would do to one sample after the other.

    Raises:
        Unbatched: there is such an operation.
    """
    functorch: Any = torch._C._functorch
    before = functorch._is_vmap_fallback_enabled()
    functorch._set_vmap_fallback_enabled(False)
    try:
        yield
    except RuntimeError as error:
        raise Unbatched(next(iter(str(error).splitlines()), "")[:200]) from error
    finally:
        functorch._set_vmap_fallback_enabled(before)


class Halves(NamedTuple):
    """A joint graph cut in two.

    forward: primals -> (outputs, what is kept). backward: (what it takes) -> gradients.
    takes: of each input of backward, where it comes from: ("primal" | "kept" | "tangent", position).
    """

    forward: fx.GraphModule
    backward: fx.GraphModule
    takes: list[tuple[str, int]]


def partition(joint: fx.GraphModule, outputs: int) -> Halves:
    """Cut the graph of (primals, tangents) -> (outputs, gradients) where the least must be kept between the halves.

    What is cheap is computed again (`min_cut_rematerialization_partition`). Inputs are not handed through.
    """
    from torch._functorch.partitioners import min_cut_rematerialization_partition

    forward, backward = min_cut_rematerialization_partition(joint, (), num_fwd_outputs=outputs)
    primals = forward.graph.find_nodes(op="placeholder")
    output = forward.graph.output_node()
    results: list[Any] = list(output.args[0])  # type: ignore[arg-type]
    names = [node.name for node in primals]
    kept = [node for node in results[outputs:] if node not in set(primals)]
    output.args = (tuple([*results[:outputs], *kept]),)
    forward.recompile()
    kept_names = [node.name for node in kept]
    tangents = [node.name for node in joint.graph.find_nodes(op="placeholder") if "tangents" in str(node.target)]
    takes: list[tuple[str, int]] = []
    for node in backward.graph.find_nodes(op="placeholder"):
        for kind, candidates in (("primal", names), ("kept", kept_names), ("tangent", tangents)):
            if node.name in candidates:
                takes.append((kind, candidates.index(node.name)))
                break
        else:
            raise AssertionError(f"the backward half takes {node.name}, which the forward half does not give")
    return Halves(forward, backward, takes)
