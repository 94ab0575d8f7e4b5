"""Loops as programs: on the host, as one piece of machine code, or as a graph that a GPU repeats."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from node_runner.engines.compiled.attempts import Loop, at_once, pull_one
from node_runner.engines.compiled.inductor import Compiled, compile_graph, loop_graph
from node_runner.engines.compiled.programs import Kit, Source, compiling, proven
from node_runner.engines.compiled.tracing import fake_mode, trace


class Repeats(Protocol):
    """A loop of one solve."""

    def run(self, carried: list[Tensor], fixed: list[Tensor]) -> list[Tensor]:
        """Repeat the body until nothing is ahead; what is carried then."""
        ...


class EagerLoop:
    """The loop as it is written, its condition looked at on the host."""

    def __init__(self, loop: Loop, source: Source) -> None:
        self.loop, self.source = loop, source

    def run(self, carried: list[Tensor], fixed: list[Tensor]) -> list[Tensor]:
        while bool(self.loop.ahead(carried, fixed)):
            carried = self.loop.body(carried, fixed, self.source.tensors)
        return carried


class CompiledLoop:
    """The loop as one graph in machine code.

    Args:
        loop: to be run.
        source: of its step.
        kit: of its kind, with the machine code once there is one.
        book: told the seconds of a compilation.
    """

    def __init__(self, loop: Loop, source: Source, kit: Kit, book: Callable[[float], None]) -> None:
        self.loop, self.source, self.kit, self.book = loop, source, kit, book

    def run(self, carried: list[Tensor], fixed: list[Tensor]) -> list[Tensor]:
        arguments = [*carried, *fixed, *self.source.tensors]
        if self.kit.run is None:
            self.kit.run = self._compile(carried, fixed)
        return list(self.kit.run(arguments))

    def _compile(self, carried: list[Tensor], fixed: list[Tensor]) -> Compiled:
        loop, mode, tensors = self.loop, fake_mode(), self.source.tensors
        with compiling(loop.about, self.book):
            groups = [carried, fixed, tensors]
            ahead = trace(lambda carried, fixed, tensors: [loop.ahead(carried, fixed)], groups, mode)
            body = trace(lambda carried, fixed, tensors: loop.body(carried, fixed, tensors), groups, mode)
            once, bound = loop.once(carried, fixed)
            arguments = [*once, *bound, *tensors]
            expected = body(*arguments)[:2]
            graph = loop_graph(ahead, body, carried, [*fixed, *tensors], mode)
            return proven(compile_graph(graph, arguments, mode), arguments, expected)


class AtOnce:
    """The gradient of all recorded steps together, called or compiled.

    Args:
        source: of the step.
        kit: of its kind.
        book: told the seconds of a compilation (None: nothing is compiled).
    """

    def __init__(self, source: Source, kit: Kit, book: Callable[[float], None] | None) -> None:
        self.source, self.kit, self.book = source, kit, book

    def run(self, carried: list[Tensor], fixed: list[Tensor]) -> list[Tensor]:
        if self.kit.run is None:
            self.kit.run = self._make(carried, fixed)
        return list(self.kit.run([*carried, *fixed, *self.source.tensors]))

    def _make(self, carried: list[Tensor], fixed: list[Tensor]) -> Compiled:
        scalars, before, given = fixed
        step = [[scalars[0], before[0, 0], before[0, 1]], self.source.tensors, list(given[0].unbind(0))]
        pull = pull_one(self.source)
        mode = fake_mode()
        compute = at_once(trace(lambda *lists: pull(*lists), step, mode, decompose=False))
        groups = [carried, fixed, self.source.tensors]
        graph = trace(lambda *lists: compute(*lists), groups, mode)
        if self.book is None:
            return lambda arguments: graph(*arguments)
        with compiling(f"gradients of {self.source.about}, all at once", self.book):
            arguments = [*carried, *fixed, *self.source.tensors]
            return proven(compile_graph(graph, arguments, mode), arguments, None)
