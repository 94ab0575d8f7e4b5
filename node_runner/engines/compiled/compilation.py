"""From a graph to machine code that has been tried out, with a word in the log."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses import FakeTensorMode

from node_runner.engines.compiled.inductor import Compiled, compile_graph
from node_runner.engines.compiled.tracing import Untraceable
from node_runner.errors import ConfigError


log = logging.getLogger("node_runner")

ONE_AT_A_TIME = threading.RLock()
"""Held while a step is compiled: its field has tensors without numbers in place of its own meanwhile."""


@contextmanager
def compiling(about: str, book: Callable[[float], None]) -> Iterator[None]:
    """Within this block something is compiled: says so, how long it took, and if it cannot be, why.

    Args:
        about: what is compiled, in words.
        book: told the seconds that it took.

    Raises:
        ConfigError: in one sentence.
    """
    with ONE_AT_A_TIME:
        log.info("engine compiled: compiling %s", about)
        began = time.perf_counter()
        try:
            yield
        except Untraceable as reason:
            raise ConfigError(
                f"engine=compiled cannot compile the {about}: the field {reason}; use engine=torchdiffeq"
            ) from reason
        except Exception as error:  # of a user's field, of Inductor or of the compiler that it calls
            first = next(iter(str(error).splitlines()), "")
            raise ConfigError(
                f"engine=compiled could not compile the {about} ({type(error).__name__}: {first[:200]}); "
                "use engine=torchdiffeq"
            ) from error
        finally:
            seconds = time.perf_counter() - began
            book(seconds)
        log.info("engine compiled: compiled %s in %.1f s", about, seconds)


def machine_code(
    graph: fx.GraphModule, arguments: Sequence[Tensor], mode: FakeTensorMode, expected: Sequence[Tensor] | None,
    *, straight: int | None = None,
) -> Compiled:  # fmt: skip
    """Compile a graph, and call the machine code once to see that it gives what the graph gives.

    Inductor may choose other strides for a result than the graph has; where the call shows that it did, results are
    made contiguous, as the next graph takes them to be.

    Args:
        graph: to be compiled.
        arguments: to compile it for and to try it with.
        mode: in which it was traced.
        expected: the first results, as the graph gives them (None: they are not to be compared).
        straight: how many of the results must be contiguous (None: all); others may have the graph's own strides.

    Raises:
        ArithmeticError: the results differ by more than rounding.
    """
    code = compile_graph(graph, list(arguments), mode)
    results = code(list(arguments))
    if expected is not None:
        _check(results[: len(expected)], expected)
    nodes: Any = graph.graph.output_node().args[0]
    odd = [
        i
        for i, (result, node) in enumerate(zip(results, nodes, strict=True))
        if not result.is_contiguous()
        and (straight is None or i < straight or result.stride() != node.meta["val"].stride())
    ]
    if not odd:
        return code

    def straightened(arguments: list[Tensor]) -> Sequence[Tensor]:
        found = list(code(arguments))
        for i in odd:
            found[i] = found[i].contiguous()
        return found

    return straightened


def _check(results: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    for result, right in zip(results, expected, strict=False):
        size = float(right.abs().max()) if right.numel() else 0.0
        tolerance = max(size, 1e-3) * (1e-3 if right.dtype is torch.float32 else 1e-8)
        # Numbers on their way to infinity say nothing.
        if math.isfinite(size) and not torch.allclose(result, right, rtol=0.0, atol=tolerance):
            raise ArithmeticError("the machine code gives other numbers than the graph that it was made from")
