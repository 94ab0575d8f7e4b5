"""One solve: forward, and its gradient by the tape or by the continuous adjoint."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from node_runner.engines.compiled.strides import GridStrides, Readout, Stride, Strides
from node_runner.engines.compiled.tape import Outputs, Tape
from node_runner.engines.compiled.walk import Adaptive, Grid, Programs, direction_of, interpolant
from node_runner.errors import SolveFailed
from node_runner.types import Gradient, Method, SolveStats


KEEPS = {"off": "activations", "checkpoint": "states", "on": None, "seminorm": None}
"""What the tape of the forward solve holds for each gradient."""


class Field(NamedTuple):
    """The field of a solve, as the gradient needs it.

    tensors: those that want a gradient. parameters: positions among these of the parameters, which alone are part
    of a continuous adjoint. forward, backward: programs of the field and of its adjoint.
    """

    tensors: list[Tensor]
    parameters: list[int]
    forward: Programs
    backward: Programs | None


class CompiledSolve:
    """A solve that can be run, and then differentiated any number of times.

    Args:
        method: with a tableau.
        field: as programs.
        ts: (T,) times.
        rtol, atol: of the forward solve.
        gradient: that is wanted, or None.
        spent_compiling: seconds spent compiling so far, which are not the solve's.
    """

    def __init__(
        self, method: Method, field: Field, y0: Tensor, ts: Tensor, rtol: float, atol: float,
        gradient: Gradient | None, spent_compiling: Callable[[], float],
    ) -> None:  # fmt: skip
        self.method, self.field, self.gradient = method, field, gradient
        self.rtol, self.atol, self.spent_compiling = rtol, atol, spent_compiling
        # As the reference engine hands times over: in the dtype of the state, then on a clock of float64.
        self.times = ts.detach().to(y0.dtype).cpu()
        self.direction = direction_of(method, self.times.tolist())
        self.stats = SolveStats()
        self.tape = Tape(KEEPS[gradient.adjoint] if gradient else None)
        self.blocks: Any = None
        self.readouts: list[Readout] = []

    def forward(self, y0: Tensor) -> Tensor:
        """States (T, B, D...) at every time.

        Raises:
            SolveFailed: the solve gave up.
        """
        began, compiling = time.perf_counter(), self.spent_compiling()
        y0 = y0.detach().contiguous()
        ys = y0.new_empty((len(self.times), *y0.shape))
        ys[0] = y0
        outputs = Outputs(ys[1:], interpolant(self.method))
        clock = self.times if self.direction > 0 else -self.times
        walk = self._walk(self.field.forward, self.tape, self.rtol, self.atol, self.direction, self.stats)
        if isinstance(walk, Strides | GridStrides):
            self._read(walk.strides(clock, y0), clock.tolist(), ys)
        else:
            walk.march(clock, y0, outputs)
        outputs.finish()
        self.blocks = outputs.blocks
        self.stats.kept_bytes = self.tape.kept_bytes + sum(readout.stride.kept_bytes for readout in self.readouts)
        self.stats.seconds_forward = time.perf_counter() - began - (self.spent_compiling() - compiling)
        return ys

    def _walk(
        self, programs: Programs, tape: Tape, rtol: float, atol: float, direction: int, stats: SolveStats
    ) -> Adaptive | Grid:
        looped = programs.loop is not None
        if self.method.adaptive:
            kind = Strides if looped else Adaptive
            return kind(self.method, programs, tape, rtol, atol, direction, stats)
        return (GridStrides if looped else Grid)(self.method, programs, tape, direction, stats)

    def _read(self, strides: Iterator[Stride], targets: Sequence[float], ys: Tensor) -> None:
        """Write what strides give at the times (T,), and keep what a gradient needs of them."""
        j = 1
        for stride in strides:
            readout = stride.read(targets, j, interpolant(self.method), self.direction)
            j = readout.last
            if j > readout.first:
                readout.write(ys)
            if self.tape.keeping is not None:
                self.readouts.append(readout)

    # --- the gradient of the computed numbers

    def discrete(self, grad_ys: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The gradient by y0 and by each tensor, step by step from the last to the first."""
        found = Outputs.gradient(self.blocks, grad_ys[1:])
        sums = [torch.zeros_like(tensor) for tensor in self.field.tensors]
        zero = torch.zeros_like(grad_ys[0])
        if self.readouts:
            reached, sums = self._undone(grad_ys, sums)
            found = {(name, 0): gradient for name, gradient in zip(("y", "slope"), reached, strict=False)}
        for step in reversed(self.tape.steps):
            tangents = [found.pop(name, zero) for name in step.gives]
            if step.states is None:
                pulled = step.program.pull_kept(step.kept, tangents)
            else:
                pulled = step.program.pull(step.states, tangents)
            for name, gradient in zip(step.takes, pulled.states, strict=True):
                found[name] = found[name] + gradient if name in found else gradient
            if sums:
                torch._foreach_add_(sums, list(pulled.tensors))
        if self.readouts or self.tape.keeping == "states":
            self.stats.nfe_backward += self.evaluations_again
        return found.get(("y", 0), zero) + grad_ys[0], sums

    def _undone(self, grad_ys: Tensor, sums: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The gradient (m, ...) that reaches the states at the start which a step takes, and that of each tensor."""
        programs = self.field.forward
        many = sum(readout.stride.accepted for readout in self.readouts) >= programs.many
        undo = programs.at_once if many and programs.at_once is not None else programs.undo
        assert undo is not None
        gradient = torch.zeros_like(self.readouts[0].stride.start)
        for readout in reversed(self.readouts):
            stride = readout.stride
            start, given = readout.gradient(grad_ys)
            number = torch.tensor([stride.accepted], device=gradient.device)
            _, gradient, *sums = undo.run([number, gradient, *sums], [stride.scalars, stride.before, given])
            gradient = gradient + start
        return gradient, sums

    @property
    def evaluations_again(self) -> int:
        """Evaluations that the gradient computes once more: those of the steps that were taken, and of the start."""
        tableau = self.method.tableau
        assert tableau is not None
        if not self.method.adaptive:
            return self.stats.nfe_forward
        return self.stats.accepted * (tableau.stages - 1) + (self.tape.keeping == "states")

    # --- the continuous adjoint

    def continuous(self, ys: Tensor, grad_ys: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The gradient by y0 and by each parameter, by a solve backward in time from each output to the one before.

        Raises:
            SolveFailed: a backward solve gave up.
        """
        programs = self.field.backward
        assert programs is not None
        parameters = [self.field.tensors[i] for i in self.field.parameters]
        n = ys[0].numel()
        state = ys.new_zeros(1 + 2 * n + sum(p.numel() for p in parameters))
        adjoint = slice(1 + n, 1 + 2 * n)
        state[adjoint] = grad_ys[-1].reshape(-1)
        for i in range(len(ys) - 1, 0, -1):
            # Restart from the forward solve's own state, as torchdiffeq does.
            state[1 : 1 + n] = ys[i].reshape(-1)
            try:
                state = self._interval(programs, state, i)
            except SolveFailed as error:
                raise SolveFailed(f"in the backward solve of the adjoint: {error}") from error
            state[adjoint] += grad_ys[i - 1].reshape(-1)
        sums = [torch.zeros_like(tensor) for tensor in self.field.tensors]
        parts = state[1 + 2 * n :].split([p.numel() for p in parameters])
        for i, part, parameter in zip(self.field.parameters, parts, parameters, strict=True):
            sums[i] = part.view_as(parameter).to(parameter.dtype)
        return state[adjoint].view_as(ys[0]).clone(), sums

    def _interval(self, programs: Programs, state: Tensor, i: int) -> Tensor:
        assert self.gradient is not None
        stats, direction = SolveStats(), -self.direction
        out = Outputs(state.new_empty((1, *state.shape)), interpolant(self.method))
        interval = direction * self.times[i - 1 : i + 1].flip(0)
        walk = self._walk(programs, Tape(None), self.gradient.rtol, self.gradient.atol, direction, stats)
        walk.march(interval, state, out)
        out.finish()
        self.stats.add_backward(stats)
        return out.ys[0]


class Differentiable(torch.autograd.Function):
    """A compiled solve as an operation of autograd: (solve, y0, *tensors) -> ys."""

    @staticmethod
    def forward(ctx: Any, solve: CompiledSolve, y0: Tensor, *tensors: Tensor) -> Tensor:
        """Run the forward solve."""
        ctx.solve = solve
        ys = solve.forward(y0)
        # Saved for autograd to complain if one is changed before the gradient is computed.
        ctx.save_for_backward(*(tensors if solve.tape.keeping else (ys, *tensors)))
        return ys

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_ys: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradient that was asked for."""
        solve: CompiledSolve = ctx.solve
        saved = ctx.saved_tensors
        grad_ys = grad_ys.contiguous()
        if solve.tape.keeping is None:
            grad_y0, gradients = solve.continuous(saved[0], grad_ys)
        else:
            grad_y0, gradients = solve.discrete(grad_ys)
        return (None, grad_y0 if ctx.needs_input_grad[1] else None, *gradients)
