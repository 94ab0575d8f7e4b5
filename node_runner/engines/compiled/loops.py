"""Loops as programs: on the host, as one piece of machine code, or as a graph that a GPU repeats."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from node_runner.engines.compiled.attempts import Loop, at_once, pull_one
from node_runner.engines.compiled.compilation import compiling, log, machine_code
from node_runner.engines.compiled.inductor import Compiled, Unbatched, batched, loop_graph
from node_runner.engines.compiled.programs import Kit, Source
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
            # Not more, which may be small differences of large numbers.
            expected = body(*arguments)[:1]
            graph = loop_graph(ahead, body, carried, [*fixed, *tensors], mode)
            return machine_code(graph, arguments, mode, expected)


class CapturedLoop:
    """The body several times over as one CUDA graph, which the host replays: one look at the condition a replay.

    The graph reads and writes memory of its own, into which a run copies what it is given. On the CPU the same is
    done without a graph, for tests of all but the capture.

    The capture itself has not been run on a GPU yet: nothing chooses it but the user.

    Args:
        loop: to be run.
        source: of its step.
        kit: of its kind, with the graph once there is one.
        every: attempts a replay.
        book: told the seconds of a compilation (None: what is captured are the operations as they are written).
    """

    def __init__(self, loop: Loop, source: Source, kit: Kit, every: int, book: Callable[[float], None] | None) -> None:
        self.loop, self.source, self.kit, self.every, self.book = loop, source, kit, every, book

    def run(self, carried: list[Tensor], fixed: list[Tensor]) -> list[Tensor]:
        given = [*carried, *fixed, *self.source.tensors]
        if self.kit.run is None:
            self.kit.run = self._make(carried, fixed)
        return list(self.kit.run(given))

    def _block(self, carried: list[Tensor], fixed: list[Tensor], tensors: list[Tensor]) -> list[Tensor]:
        for _ in range(self.every):
            carried = self.loop.body(carried, fixed, tensors)
        return [*carried, self.loop.ahead(carried, fixed)]

    def _make(self, carried: list[Tensor], fixed: list[Tensor]) -> Compiled:
        own = [tensor.detach().clone() for tensor in (*carried, *fixed, *self.source.tensors)]
        count, cut = len(carried), len(carried) + len(fixed)
        more = torch.zeros((), dtype=torch.bool, device=own[0].device)
        block = self._code(carried, fixed)

        def advance() -> None:
            *results, going = block([*own]) if block else self._block(own[:count], own[count:cut], own[cut:])
            torch._foreach_copy_([*own[:count], more], [*results, going])

        replay = _captured(advance) if own[0].is_cuda else advance

        def run(given: list[Tensor]) -> list[Tensor]:
            torch._foreach_copy_(own, given)
            replay()
            while bool(more):
                replay()
            return [tensor.clone() for tensor in own[:count]]

        return run

    def _code(self, carried: list[Tensor], fixed: list[Tensor]) -> Compiled | None:
        if self.book is None:
            return None
        with compiling(f"{self.loop.about}, {self.every} at a time", self.book):
            mode, groups = fake_mode(), [carried, fixed, self.source.tensors]
            arguments = [tensor for group in groups for tensor in group]
            graph = trace(lambda *lists: self._block(*lists), groups, mode)
            return machine_code(graph, arguments, mode, graph(*arguments)[:1])


def _captured(advance: Callable[[], None]) -> Callable[[], None]:
    """A CUDA graph of what a function does, after a few calls on a stream of its own, as captures ask for."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            advance()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        advance()
    return graph.replay


class AtOnce:
    """The gradient of all recorded steps together, called or compiled.

    Args:
        source: of the step.
        kit: of its kind.
        book: told the seconds of a compilation (None: nothing is compiled).
        otherwise: what serves if the step does something that cannot be done to many states together.
    """

    def __init__(self, source: Source, kit: Kit, book: Callable[[float], None] | None, otherwise: Repeats) -> None:
        self.source, self.kit, self.book, self.otherwise = source, kit, book, otherwise

    def run(self, carried: list[Tensor], fixed: list[Tensor]) -> list[Tensor]:
        if self.kit.unfit:
            return self.otherwise.run(carried, fixed)
        if self.kit.run is None:
            try:
                self.kit.run = self._make(carried, fixed)
            except Unbatched as reason:
                log.info("engine compiled: gradients of %s step by step: %s", self.source.about, reason)
                self.kit.unfit = True
                return self.otherwise.run(carried, fixed)
        return list(self.kit.run([*carried, *fixed, *self.source.tensors]))

    def _make(self, carried: list[Tensor], fixed: list[Tensor]) -> Compiled:
        scalars, before, given = fixed
        step = [[scalars[0], *before[0].unbind(0)], self.source.tensors, list(given[0].unbind(0))]
        pull = pull_one(self.source)
        mode = fake_mode()
        compute = at_once(trace(lambda *lists: pull(*lists), step, mode, decompose=False))
        groups = [carried, fixed, self.source.tensors]
        with batched():
            graph = trace(lambda *lists: compute(*lists), groups, mode)
        if self.book is None:
            return lambda arguments: graph(*arguments)
        with compiling(f"gradients of {self.source.about}, all at once", self.book):
            arguments = [*carried, *fixed, *self.source.tensors]
            return machine_code(graph, arguments, mode, None)
