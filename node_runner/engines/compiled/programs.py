"""Steps as programs: called as they are, or compiled, and differentiated either way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from node_runner.engines.compiled.compilation import compiling, machine_code
from node_runner.engines.compiled.inductor import Compiled, partition
from node_runner.engines.compiled.reading import Reading
from node_runner.engines.compiled.steps import Compute, Result
from node_runner.engines.compiled.tracing import Function, fake_mode, trace


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
            return machine_code(graph, arguments, mode, expected)

    def _cut(self, states: list[Tensor]) -> None:
        with compiling(f"{self.source.about}, keeping its activations", self.book):
            mode = fake_mode()
            primals = [*states, *self.source.tensors]
            tangents = [torch.empty_like(states[1]) for _ in range(self.source.outputs)]
            joint = trace(lambda primals, tangents: self._joint(primals, tangents), [primals, tangents], mode)
            count = self.source.outputs + 1
            halves = partition(joint, count)
            expected = halves.forward(*primals)[: self.source.outputs]
            self.kit.forward = machine_code(halves.forward, primals, mode, expected, straight=count)
            self.kit.takes, self.kit.backward_graph = halves.takes, (halves.backward, mode)

    def _finish(self, states: list[Tensor], kept: Sequence[Tensor]) -> None:
        """Compile the backward half, for the strides that the forward half gave what is kept."""
        with compiling(f"{self.source.about}, gradient from its activations", self.book):
            graph, mode = self.kit.backward_graph
            tangents = [torch.zeros_like(states[1]) for _ in range(self.source.outputs)]
            needed = [states[i] if kind == "primal" and i < len(states) else None for kind, i in self.kit.takes]
            arguments = self._arguments(len(states), needed, kept, tangents)
            self.kit.backward = machine_code(graph, arguments, mode, None)
            self.kit.backward_graph = None
            own = [tensor for tensor in needed[1:] if tensor is not None]
            self.kit.kept_bytes = sum(tensor.numel() * tensor.element_size() for tensor in (*kept, *own))

    def _result(self, outputs: Sequence[Tensor]) -> Result:
        count = self.source.outputs
        return Result(list(outputs[:count]), list(outputs[count:]))

    def _split(self, found: Sequence[Tensor]) -> Pulled:
        cut = len(found) - len(self.source.wanted)
        return Pulled(found[:cut], found[cut:])
