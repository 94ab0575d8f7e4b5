"""Makes the programs of a solve from the arithmetic of its steps, compiled or called as they are written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from node_runner.engines.compiled import steps
from node_runner.engines.compiled.attempts import Loop, attempts, marching, undoing
from node_runner.engines.compiled.loops import AtOnce, CapturedLoop, CompiledLoop, EagerLoop, Repeats
from node_runner.engines.compiled.programs import CompiledProgram, EagerProgram, Kit, Program, Source
from node_runner.engines.compiled.reading import Reading
from node_runner.engines.compiled.systems import System
from node_runner.engines.compiled.walk import Programs
from node_runner.settings import Capture
from node_runner.types import Method, Tableau


MOST_KINDS = 200
"""Kinds of field and state whose steps a process keeps."""

ATTEMPTS = 8
"""Attempts in one replay of a CUDA graph, after which the host looks at the clock."""

KITS: dict[Any, dict[Any, Kit]] = {}
"""Compiled steps of this process, by field and state, then by kind of step: equal ones share them."""


class Way(NamedTuple):
    """How the programs of a solve are made.

    compiled: into machine code. capture: see `CompiledEngine`. looped: many attempts in one program, whose gradients
    are found at once for states of up to `at_once_up_to` numbers, from `at_once_from` steps for each of them on.
    book: told the seconds of each compilation.
    """

    compiled: bool
    capture: Capture
    looped: bool
    at_once_up_to: int
    at_once_from: int
    book: Callable[[float], None]


class Factory:
    """Makes the programs of one solve.

    Args:
        method: with a tableau.
        reading: of the field.
        wanted: positions of the field's tensors that want a gradient.
        y0: (B, D...) states.
        way: how programs are made.
    """

    def __init__(self, method: Method, reading: Reading, wanted: tuple[int, ...], y0: Tensor, way: Way) -> None:
        assert method.tableau is not None
        self.method, self.tableau, self.reading, self.wanted, self.way = method, method.tableau, reading, wanted, way
        self.tensors = [tensor.detach() for tensor in reading.tensors]
        self.size = y0.numel()
        # The number of threads is written into the code.
        key = (reading.key, y0.shape, y0.dtype, y0.device, torch.get_num_threads())
        if len(KITS) >= MOST_KINDS and key not in KITS:
            KITS.clear()
        self.kits = KITS.setdefault(key, {})
        self.state = f"{tuple(y0.shape)}, {str(y0.dtype).removeprefix('torch.')}"

    def __call__(self, system: System, about: str = "") -> Programs:
        """The programs of a system; `about` says what it is beside the field, and nothing for the field itself."""
        order, options = self.method.order or 1, self.method.options
        begin: Program | None = None
        if self.method.adaptive:
            step, outputs = steps.adaptive_step(system, self.tableau), 3
            own_first = options["first_step"] is not None
            compute, kind = (steps.slope(system), "slope") if own_first else (steps.begin(system, order), "begin")
            begin = self._make(compute, 1, (kind, order), about)
        else:
            cubic = options["interp"] == "cubic"
            step, outputs = steps.fixed_step(system, self.tableau, cubic), 3 if cubic else 1
        programs = Programs(begin, self._make(step, outputs, ("step", self.tableau, outputs), about))
        # A continuous adjoint stops at every output, after a step or two.
        if not self.way.looped or about:
            return programs
        source, way = self._source(step, outputs, "step", ""), (outputs, self.way.capture, self.way.compiled)
        undo = self._loop(undoing(source), source, self._kit("undo", self.tableau, *way))
        at_once = None
        if self.size <= self.way.at_once_up_to:
            book = self.way.book if self.way.compiled else None
            at_once = AtOnce(source, self._kit("at once", self.tableau, *way), book, undo)
        loop = attempts(source, order) if self.method.adaptive else marching(source)
        return programs._replace(
            loop=self._loop(loop, source, self._kit("loop", self.tableau, order, *way)),
            undo=undo, at_once=at_once, many=self.way.at_once_from * self.size,
        )  # fmt: skip

    def _loop(self, loop: Loop, source: Source, kit: Kit) -> Repeats:
        compiled, capture, book = self.way.compiled, self.way.capture, self.way.book
        if capture is not Capture.off:
            return CapturedLoop(loop, source, kit, ATTEMPTS, book if compiled else None)
        return CompiledLoop(loop, source, kit, book) if compiled else EagerLoop(loop, source)

    def _make(self, compute: steps.Compute, outputs: int, kind: tuple[str | int | Tableau, ...], about: str) -> Program:
        source = self._source(compute, outputs, str(kind[0]), about)
        return (
            CompiledProgram(source, self._kit(*kind, about), self.way.book)
            if self.way.compiled
            else EagerProgram(source)
        )

    def _source(self, compute: steps.Compute, outputs: int, kind: str, about: str) -> Source:
        words = f"{kind} of {self.method.name} on {self.state}" + (f" ({about})" if about else "")
        return Source(compute, self.reading, self.tensors, self.wanted, outputs, words)

    def _kit(self, *kind: Any) -> Kit:
        return self.kits.setdefault(kind, Kit(self.reading.held))
