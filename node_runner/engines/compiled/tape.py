"""What a forward solve leaves for its gradient: its steps in order, and what every output time is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from node_runner.engines.compiled.programs import Program
from node_runner.engines.compiled.steps import Result


Numbers = np.ndarray[Any, np.dtype[np.float64]]

Name = tuple[str, int]
"""A state of a solve: ("y" | "slope" | "middle" | "end", number of the step)."""

MOST_STATES = 64
"""That are stacked at a time, so that a long solve is not stacked whole."""


Interpolant = Callable[[Numbers, Numbers], tuple[Numbers, ...]]
"""(x (m,) within steps, 0..1, h (m,) their signed sizes) -> weights of the states that steps give, (m,) each.

The first state is that at the step's end.
"""


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
        """Run a program. It is recorded only if `take` follows: a rejected step is not."""
        if self.keeping == "activations":
            result, self._held = program.keep(states)
            return result
        self._held = states
        return program.run(states)

    def take(self, program: Program, takes: tuple[Name, ...], gives: tuple[Name, ...]) -> None:
        """Record the last run as a step of the solve: from which states it was made, and what its outputs are."""
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
        interpolant: how an output is made of its step's states.
    """

    def __init__(self, ys: Tensor, interpolant: Interpolant) -> None:
        self.ys, self.interpolant = ys, interpolant
        self.blocks: list[Block] = []
        self._first = 0
        self._clear()

    def _clear(self) -> None:
        self._columns: dict[Name, int] = {}
        self._values: list[Tensor] = []
        self._index: list[list[int]] = []
        self._x: list[float] = []
        self._h: list[float] = []

    def add(self, names: Sequence[Name], values: Sequence[Tensor], xs: list[float], h: float) -> None:
        """The next outputs, which lie in a step of size h that gave these states."""
        if xs == [1.0]:
            names = names[:1]
        columns, place = self._columns, []
        for name, value in zip(names, values, strict=False):
            column = columns.get(name)
            if column is None:
                column = columns[name] = len(self._values)
                self._values.append(value)
            place.append(column)
        place += place[:1] * (len(values) - len(place))
        self._index += [place] * len(xs)
        self._x += xs
        self._h += [h] * len(xs)
        if len(self._values) >= MOST_STATES:
            self.finish()

    def finish(self) -> None:
        """Write the outputs that were added."""
        values, count = self._values, len(self._x)
        if not values:
            return
        target, like = self.ys[self._first : self._first + count], values[0]
        weights: Tensor | None = None
        if len(values) == count and self._x == [1.0] * count:
            torch.stack(values, out=target)
        else:
            columns = np.array(self._index)
            numbers = np.stack(self.interpolant(np.array(self._x), np.array(self._h)), axis=1)
            dense = np.zeros((count, len(values)))
            np.add.at(dense, (np.arange(count)[:, None], columns), numbers)
            # Each output gathers its own states: a sum over all would spread a NaN to where it has weight zero.
            index = torch.from_numpy(columns.reshape(-1)).to(like.device)
            factors = torch.from_numpy(numbers).to(like)
            gathered = torch.stack(values).view(len(values), -1)[index].view(*columns.shape, -1)
            torch.bmm(factors[:, None], gathered, out=target.view(count, 1, -1))
            weights = torch.from_numpy(dense).to(like)
        self.blocks.append(Block(self._first, self._first + count, list(self._columns), weights))
        self._first += count
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
