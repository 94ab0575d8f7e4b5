"""Steps as programs: called as they are, or compiled, and differentiated either way."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from node_runner.engines.compiled.inductor import Compiled, compile_graph, partition
from node_runner.engines.compiled.reading import Reading
from node_runner.engines.compiled.steps import Compute, Result
from node_runner.engines.compiled.tracing import Function, Untraceable, fake_mode, trace
from node_runner.errors import ConfigError


log = logging.getLogger("node_runner")

ONE_AT_A_TIME = threading.RLock()
"""Held while a step is compiled: its field has tensors without numbers in place of its own meanwhile."""


class Pulled(NamedTuple):
    """states: the gradient of each state but the first. tensors: of each tensor that wants one."""

    states: Sequence[Tensor]
    tensors: Sequence[Tensor]


class Program(Protocol):
    """A step of one solve, which can be run and differentiated."""

    @property
    def kept_bytes(self) -> int:
        """Memory that one run with `keep` holds."""
        ...

    def run(self, states: list[Tensor]) -> Result:
        """The result, and nothing for a gradient."""
        ...

    def keep(self, states: list[Tensor]) -> tuple[Result, Any]:
        """The result, and what `pull_kept` needs."""
        ...

    def pull_kept(self, kept: Any, tangents: list[Tensor]) -> Pulled:
        """Gradients, given those of the outputs."""
        ...

    def pull(self, states: list[Tensor], tangents: list[Tensor]) -> Pulled:
        """The same from the states alone: the step is computed again."""
        ...


class Source(NamedTuple):
    """What a program is made of.

    compute: the step. reading: of the field. tensors: its tensors, detached. wanted: positions of those that want a
    gradient. outputs: how many outputs the step has. about: it in words.
    """

    compute: Compute
    reading: Reading
    tensors: list[Tensor]
    wanted: tuple[int, ...]
    outputs: int
    about: str

    def watched(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Tensors as leaves that autograd may differentiate by: an augmented system does within its slope."""
        return [t.detach().requires_grad_(i in self.wanted) for i, t in enumerate(tensors)]

    def call(self, states: Sequence[Tensor], tensors: Sequence[Tensor]) -> Result:
        """Compute with these tensors in the field."""
        with self.reading.holding(tensors):
            return self.compute(states, tensors)

    def tracked(self, states: Sequence[Tensor], tensors: Sequence[Tensor]) -> tuple[Result, list[Tensor]]:
        """Compute under autograd; the result, and the leaves of its graph that want gradients."""
        leaves = [state.detach().requires_grad_(True) for state in states[1:]]
        own = self.watched(tensors)
        with torch.enable_grad():
            result = self.call([states[0], *leaves], own)
        return result, [*leaves, *(own[i] for i in self.wanted)]


def gradients(
    outputs: Sequence[Tensor], leaves: Sequence[Tensor], tangents: Sequence[Tensor], **more: Any
) -> list[Tensor]:
    """The gradient of each leaf, zeros where it has no part in the outputs."""
    used = [(output, tangent) for output, tangent in zip(outputs, tangents, strict=True) if output.requires_grad]
    if not used:
        return [torch.zeros_like(leaf) for leaf in leaves]
    found = torch.autograd.grad([o for o, _ in used], leaves, [t for _, t in used], allow_unused=True, **more)
    return [torch.zeros_like(leaf) if g is None else g for g, leaf in zip(found, leaves, strict=True)]


class EagerProgram:
    """The step as it is written: for tests of everything around it, with no compiler."""

    kept_bytes = 0

    def __init__(self, source: Source) -> None:
        self.source = source

    def run(self, states: list[Tensor]) -> Result:
        with torch.no_grad():
            return self.source.call(states, self.source.watched(self.source.tensors))

    def keep(self, states: list[Tensor]) -> tuple[Result, Any]:
        result, leaves = self.source.tracked(states, self.source.tensors)
        return Result([output.detach() for output in result.outputs], result.report), (result.outputs, leaves)

    def pull_kept(self, kept: Any, tangents: list[Tensor]) -> Pulled:
        outputs, leaves = kept
        return self._split(gradients(outputs, leaves, tangents, retain_graph=True))

    def pull(self, states: list[Tensor], tangents: list[Tensor]) -> Pulled:
        result, leaves = self.source.tracked(states, self.source.tensors)
        return self._split(gradients(result.outputs, leaves, tangents))

    def _split(self, found: list[Tensor]) -> Pulled:
        cut = len(found) - len(self.source.wanted)
        return Pulled(found[:cut], found[cut:])


class Kit:
    """The compiled parts of one kind of step, made when first needed and shared by all solves of that kind."""

    def __init__(self, held: list[Any]) -> None:
        self.held = held
        self.run: Compiled | None = None
        self.pull: Compiled | None = None
        self.forward: Compiled | None = None
        self.backward: Compiled | None = None
        self.backward_graph: Any = None
        self.takes: list[tuple[str, int]] = []
        self.kept_bytes = 0
        self.unfit = False


class CompiledProgram:
    """A step with machine code from a kit, which it completes where a part is missing.

    Args:
        source: what the step is.
        kit: of its kind.
        book: told the seconds of each compilation.
    """

    def __init__(self, source: Source, kit: Kit, book: Callable[[float], None]) -> None:
        self.source, self.kit, self.book = source, kit, book

    @property
    def kept_bytes(self) -> int:
        return self.kit.kept_bytes

    def run(self, states: list[Tensor]) -> Result:
        arguments = [*states, *self.source.tensors]
        if self.kit.run is None:
            self.kit.run = self._compile("run", self._run, [states, self.source.tensors], arguments)
        return self._result(self.kit.run(arguments))

    def pull(self, states: list[Tensor], tangents: list[Tensor]) -> Pulled:
        arguments = [*states, *self.source.tensors, *tangents]
        if self.kit.pull is None:
            self.kit.pull = self._compile("gradient", self._pull, [states, self.source.tensors, tangents], arguments)
        return self._split(self.kit.pull(arguments))

    def keep(self, states: list[Tensor]) -> tuple[Result, Any]:
        kit = self.kit
        if kit.forward is None:
            self._cut(states)
        assert kit.forward is not None
        outputs = kit.forward([*states, *self.source.tensors])
        count = self.source.outputs + 1
        if kit.backward_graph is not None:
            self._finish(states, outputs[count:])
        kept = [states[i] if kind == "primal" and i < len(states) else None for kind, i in kit.takes]
        return self._result(outputs[:count]), (len(states), kept, outputs[count:])

    def pull_kept(self, kept: Any, tangents: list[Tensor]) -> Pulled:
        count, states, activations = kept
        arguments = self._arguments(count, states, activations, tangents)
        assert self.kit.backward is not None
        return self._split(self.kit.backward(arguments))

    def _arguments(
        self, count: int, states: list[Tensor | None], kept: Sequence[Tensor], tangents: list[Tensor]
    ) -> list[Tensor]:
        tensors = self.source.tensors
        found = []
        for (kind, i), state in zip(self.kit.takes, states, strict=True):
            if state is not None:
                found.append(state)
            else:
                found.append(kept[i] if kind == "kept" else tangents[i] if kind == "tangent" else tensors[i - count])
        return found

    # --- what is traced

    def _run(self, states: Sequence[Tensor], tensors: Sequence[Tensor]) -> list[Tensor]:
        with torch.no_grad():
            result = self.source.call(states, self.source.watched(tensors))
        return [*result.outputs, *result.report]

    def _pull(self, states: Sequence[Tensor], tensors: Sequence[Tensor], tangents: Sequence[Tensor]) -> list[Tensor]:
        result, leaves = self.source.tracked(states, tensors)
        return gradients(result.outputs, leaves, tangents)

    def _joint(self, primals: Sequence[Tensor], tangents: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        cut = len(primals) - len(self.source.tensors)
        result, leaves = self.source.tracked(primals[:cut], primals[cut:])
        report = [r.detach() for r in result.report] or [primals[0].detach().clone()]
        return [*result.outputs, *report], gradients(result.outputs, leaves, tangents)

    # --- compilation

    def _compile(self, part: str, function: Function, groups: list[list[Tensor]], arguments: list[Tensor]) -> Compiled:
        with compiling(f"{self.source.about}, {part}", self.book):
            mode = fake_mode()
            # A plain function: the tracer would count the `self` of a method among the arguments.
            graph = trace(lambda *lists: function(*lists), groups, mode)
            # Not the report, which is small differences of large numbers, nor gradients, which may be.
            expected = graph(*arguments)[: self.source.outputs] if part == "run" else None
            return proven(compile_graph(graph, arguments, mode), list(arguments), expected)

    def _cut(self, states: list[Tensor]) -> None:
        with compiling(f"{self.source.about}, keeping its activations", self.book):
            mode = fake_mode()
            primals = [*states, *self.source.tensors]
            tangents = [torch.empty_like(states[1]) for _ in range(self.source.outputs)]
            joint = trace(lambda primals, tangents: self._joint(primals, tangents), [primals, tangents], mode)
            halves = partition(joint, self.source.outputs + 1)
            expected = halves.forward(*primals)[: self.source.outputs]
            code = compile_graph(halves.forward, primals, mode)
            self.kit.takes, self.kit.backward_graph = halves.takes, (halves.backward, mode)
            self.kit.forward = proven(code, list(primals), expected)

    def _finish(self, states: list[Tensor], kept: Sequence[Tensor]) -> None:
        """Compile the backward half, for the strides that the forward half gave what is kept."""
        with compiling(f"{self.source.about}, gradient from its activations", self.book):
            graph, mode = self.kit.backward_graph
            tangents = [torch.zeros_like(states[1]) for _ in range(self.source.outputs)]
            needed = [states[i] if kind == "primal" and i < len(states) else None for kind, i in self.kit.takes]
            arguments = self._arguments(len(states), needed, kept, tangents)
            self.kit.backward = proven(compile_graph(graph, arguments, mode), arguments, None)
            self.kit.backward_graph = None
            own = [tensor for tensor in needed[1:] if tensor is not None]
            self.kit.kept_bytes = sum(tensor.numel() * tensor.element_size() for tensor in (*kept, *own))

    def _result(self, outputs: Sequence[Tensor]) -> Result:
        count = self.source.outputs
        return Result(list(outputs[:count]), list(outputs[count:]))

    def _split(self, found: Sequence[Tensor]) -> Pulled:
        cut = len(found) - len(self.source.wanted)
        return Pulled(found[:cut], found[cut:])


def proven(code: Compiled, arguments: list[Tensor], expected: Sequence[Tensor] | None) -> Compiled:
    """Machine code whose results are those of its graph, with the strides that the next graph was traced for.

    Inductor may choose other strides for a result than the traced ones; one call tells.

    Args:
        code: to try out.
        arguments: to try it with.
        expected: the first results, from the graph (None: they are not to be compared).

    Raises:
        ArithmeticError: the results differ by more than rounding.
    """
    results = code(arguments)
    if expected is not None:
        results = results[: len(expected)]
    for result, right in zip(results, expected or (), strict=False):
        size = float(right.abs().max()) if right.numel() else 0.0
        tolerance = max(size, 1e-3) * (1e-3 if right.dtype is torch.float32 else 1e-8)
        # Numbers on their way to infinity say nothing.
        if math.isfinite(size) and not torch.allclose(result, right, rtol=0.0, atol=tolerance):
            raise ArithmeticError("the machine code gives other numbers than the graph that it was made from")
    odd = [i for i, result in enumerate(results) if not result.is_contiguous()]
    if not odd:
        return code

    def straightened(arguments: list[Tensor]) -> Sequence[Tensor]:
        found = list(code(arguments))
        for i in odd:
            found[i] = found[i].contiguous()
        return found

    return straightened


@contextmanager
def compiling(about: str, book: Callable[[float], None]) -> Iterator[None]:
    """Says that something is being compiled, how long it took, and if it cannot be, why.

    Raises:
        ConfigError: in one sentence.
    """
    with ONE_AT_A_TIME:
        yield from _timed(about, book)


def _timed(about: str, book: Callable[[float], None]) -> Iterator[None]:
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
