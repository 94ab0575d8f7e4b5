"""What a forward solve leaves for its gradient: its steps in order, and what every output time is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from node_runner.engines.compiled.programs import Program
from node_runner.engines.compiled.steps import Result


Name = tuple[str, int]
"""A state of a solve: ("y" | "slope" | "middle" | "end", number of the step)."""

WIDTH = 5
"""States that an output may be made of."""

MOST_STATES = 64
"""That are stacked at a time, so that a long solve is not stacked whole."""


class Term(NamedTuple):
    """One state's part in an output: weight * value."""

    name: Name
    value: Tensor
    weight: float


class Step(NamedTuple):
    """One run of a program, for its gradient.

    kept: what the program kept, or else states: what it was called with. takes, gives: the states that it was
    given, scalars apart, and those that it returned.
    """

    program: Program
    states: list[Tensor] | None
    kept: Any
    takes: tuple[Name, ...]
    gives: tuple[Name, ...]


class Tape:
    """Runs programs and writes down what their gradient will need.

    Args:
        keeping: the activations of a step ("activations"), its states alone ("states"), or nothing (None).
    """

    def __init__(self, keeping: str | None) -> None:
        self.keeping = keeping
        self.steps: list[Step] = []
        self._held: Any = None

    def run(self, program: Program, states: list[Tensor]) -> Result:
        """Run a program; what it did is forgotten unless `take` follows."""
        if self.keeping == "activations":
            result, self._held = program.keep(states)
            return result
        self._held = states
        return program.run(states)

    def take(self, program: Program, takes: tuple[Name, ...], gives: tuple[Name, ...]) -> None:
        """The run just made belongs to the solve."""
        if self.keeping == "activations":
            self.steps.append(Step(program, None, self._held, takes, gives))
        elif self.keeping == "states":
            self.steps.append(Step(program, self._held, None, takes, gives))
        self._held = None

    @property
    def kept_bytes(self) -> int:
        """Memory that the steps hold."""
        if self.keeping == "activations":
            return sum(step.program.kept_bytes for step in self.steps)
        return sum(s.numel() * s.element_size() for step in self.steps for s in (step.states or ()))


class Block(NamedTuple):
    """Outputs first..last - 1 as sums of states: weights (last - first, len(names)), None for the states themselves."""

    first: int
    last: int
    names: list[Name]
    weights: Tensor | None


class Outputs:
    """Gathers the states at the output times, and carries their gradient back.

    Args:
        ys: (T, ...) to be filled.
    """

    def __init__(self, ys: Tensor) -> None:
        self.ys = ys
        self.blocks: list[Block] = []
        self._first = self._count = 0
        self._clear()

    def _clear(self) -> None:
        self._columns: dict[Name, int] = {}
        self._values: list[Tensor] = []
        self._rows: list[list[tuple[int, float]]] = []

    def add(self, terms: Sequence[Term]) -> None:
        """The next output is the sum of these."""
        row = []
        for name, value, weight in terms:
            if weight == 0:
                continue
            column = self._columns.get(name)
            if column is None:
                column = self._columns[name] = len(self._values)
                self._values.append(value)
            row.append((column, weight))
        self._rows.append(row)
        self._count += 1
        if len(self._values) >= MOST_STATES:
            self.finish()

    def finish(self) -> None:
        """Write the outputs that were added."""
        rows, values = self._rows, self._values
        if not rows:
            return
        first, last = self._first, self._count
        target = self.ys[first:last]
        like = values[0]
        if all(row == [(i, 1.0)] for i, row in enumerate(rows)):
            torch.stack(values, out=target)
            weights = None
        else:
            # Each output gathers its own states: a sum over all would spread a NaN to where it has weight zero.
            columns = [[c for c, _ in row] + [row[0][0]] * (WIDTH - len(row)) for row in rows]
            numbers = [[w for _, w in row] + [0.0] * (WIDTH - len(row)) for row in rows]
            index = torch.tensor(columns, device=like.device).view(-1)
            factors = torch.tensor(numbers, dtype=like.dtype, device=like.device)
            gathered = torch.stack(values).view(len(values), -1)[index].view(len(rows), WIDTH, -1)
            torch.bmm(factors[:, None], gathered, out=target.view(len(rows), 1, -1))
            weights = factors.new_zeros(len(rows), len(values)).scatter_add_(1, index.view(-1, WIDTH), factors)
        self.blocks.append(Block(first, last, list(self._columns), weights))
        self._first = last
        self._clear()

    @staticmethod
    def gradient(blocks: Sequence[Block], grad_ys: Tensor) -> dict[Name, Tensor]:
        """The gradient that reaches each state from the outputs."""
        found: dict[Name, Tensor] = {}
        for block in blocks:
            part = grad_ys[block.first : block.last]
            if block.weights is not None:
                part = (block.weights.T @ part.reshape(len(part), -1)).view(-1, *part.shape[1:])
            for name, gradient in zip(block.names, part.unbind(0), strict=True):
                found[name] = found[name] + gradient if name in found else gradient
        return found
