"""One solve by the native library: its arguments, its results, its gradient."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from node_runner.engines.failures import spent, stopped
from node_runner.errors import SolveFailed
from node_runner.settings import Batching
from node_runner.types import Gradient, Method, SolveStats


if TYPE_CHECKING:
    from node_runner.engines.native.plan import Library

NOTHING, EVALUATIONS, STATES, OUTPUTS = range(4)
KEEP = {"off": EVALUATIONS, "checkpoint": STATES, "on": OUTPUTS, "seminorm": OUTPUTS}
"""What the forward solve keeps for each gradient."""

DONE, TOO_SMALL, NOT_FINITE, TOO_MANY, NO_MEMORY = range(5)

_INTEGER, _NUMBER, _POINTER = ctypes.c_int64, ctypes.c_double, ctypes.c_void_p


class Call(ctypes.Structure):
    """What is asked of a solve, and what is heard back: `Call` of source/call.h, field by field."""

    _fields_ = [
        *[(name, _INTEGER) for name in ("batch", "times", "threads")],
        *[(name, _POINTER) for name in ("tensors", "y0", "ts", "start", "noise")],
        *[(name, _INTEGER) for name in ("stages", "order", "adaptive", "ends_in_solution")],
        *[(name, _POINTER) for name in ("c", "a", "b", "error", "middle")],
        *[(name, _NUMBER) for name in ("rtol", "atol", "first_step", "min_step", "max_step", "safety", "ifactor")],
        *[(name, _NUMBER) for name in ("dfactor", "step_size")],
        *[(name, _INTEGER) for name in ("cubic", "perturb", "max_steps", "keep")],
        *[(name, _NUMBER) for name in ("adjoint_rtol", "adjoint_atol")],
        ("seminorm", _INTEGER),
        ("ys", _POINTER),
        ("status", _INTEGER),
        *[(name, _NUMBER) for name in ("t", "h")],
        ("sample", _INTEGER),
        ("steps", _POINTER),
        *[(name, _INTEGER) for name in ("nfe", "accepted", "rejected", "nfe_backward", "accepted_backward")],
        *[(name, _INTEGER) for name in ("rejected_backward", "kept_bytes")],
    ]


class Recipe:
    """The part of a call that a method, its tolerances and its gradient decide: filled in once, copied for each solve.

    Args:
        method: with a tableau.
        rtol, atol: of the forward solve.
        gradient: that is wanted, or None.
    """

    def __init__(self, method: Method, rtol: float, atol: float, gradient: Gradient | None) -> None:
        tableau, options = method.tableau, method.options
        assert tableau is not None
        self.method = method
        parts = {"c": tableau.c, "a": [number for row in tableau.a for number in row], "b": tableau.b,
                 "error": tableau.error, "middle": tableau.middle}  # fmt: skip
        self._arrays = {name: (ctypes.c_double * len(numbers))(*numbers) for name, numbers in parts.items()}
        # Addresses, not ctypes.cast: that makes reference cycles, which keep a solve's memory for the collector.
        call = Call(**{name: ctypes.addressof(array) for name, array in self._arrays.items()})
        call.stages, call.order, call.adaptive = tableau.stages, method.order or 0, method.adaptive
        call.ends_in_solution, call.max_steps = tableau.ends_in_solution, method.max_steps
        call.rtol, call.atol = rtol, atol
        if method.adaptive:
            call.first_step = -1.0 if options["first_step"] is None else options["first_step"]
            for name in ("min_step", "max_step", "safety", "ifactor", "dfactor"):
                setattr(call, name, options[name])
        else:
            call.step_size = options["step_size"] or 0.0
            call.cubic, call.perturb = options["interp"] == "cubic", options["perturb"]
        if gradient is not None:
            call.keep, call.seminorm = KEEP[gradient.adjoint], gradient.adjoint == "seminorm"
            call.adjoint_rtol, call.adjoint_atol = gradient.rtol, gradient.atol
        self._call = call

    def call(self) -> Call:
        """A copy to fill in."""
        return Call.from_buffer_copy(self._call)


class NativeSolve:
    """One solve, which holds all that its two passes through the library point at.

    Args:
        library: of the field's network.
        recipe: of the method.
        parameters: of the field, in the library's order.
        start: (B,) added to the time of each sample, or None.
        noise: (B, D) probe of the divergence, or None.
        y0: (B, D + integrals).
        ts: (T,) times.
        fixed: numbers of the field that are no parameters, which follow them in the library's order.
    """

    def __init__(
        self,
        library: Library,
        recipe: Recipe,
        parameters: Sequence[Tensor],
        start: Tensor | None,
        noise: Tensor | None,
        y0: Tensor,
        ts: Tensor,
        fixed: Sequence[Tensor] = (),
    ) -> None:
        self.library, self.recipe = library, recipe
        self.shapes = [tensor.shape for tensor in parameters]
        self.stats = SolveStats(self_timed=True)
        self._kept: int | None = None
        self._call = call = recipe.call()
        y0 = y0.detach().contiguous()
        # As the reference engine hands them over: in the dtype of the state, then on a clock of float64.
        clock = ts.detach().to(y0.dtype).double().contiguous()
        tensors = [tensor.detach().contiguous() for tensor in (*parameters, *fixed)]
        pointers = (ctypes.c_void_p * len(tensors))(*[tensor.data_ptr() for tensor in tensors])
        ys = y0.new_empty((len(clock), *y0.shape))
        self._ys: Tensor | None = ys
        self._holds: list[Any] = [recipe, y0, clock, tensors, pointers]
        self._steps: Tensor | None = None
        if recipe.method.batching is Batching.per_sample:
            self._steps = torch.zeros(2, len(y0), dtype=torch.int64)
            call.steps = self._steps.data_ptr()
        for name, extra in (("start", start), ("noise", noise)):
            if extra is not None:
                extra = extra.detach().to(y0.dtype).contiguous()
                self._holds.append(extra)
                setattr(call, name, extra.data_ptr())
        call.batch, call.times, call.threads = len(y0), len(clock), torch.get_num_threads()
        call.tensors = ctypes.addressof(pointers)
        call.y0, call.ts, call.ys = y0.data_ptr(), clock.data_ptr(), ys.data_ptr()

    def forward(self) -> Tensor:
        """States (T, B, D...) at every time.

        Raises:
            SolveFailed: the solve gave up.
            MemoryError: what it keeps has no room.
        """
        began = time.perf_counter()
        call, stats = self._call, self.stats
        self._kept = self.library.handle.node_forward(ctypes.byref(call))
        stats.nfe_forward, stats.accepted, stats.rejected = call.nfe, call.accepted, call.rejected
        if self._steps is not None:
            stats.book_samples(self._steps)
        stats.kept_bytes = call.kept_bytes if self._kept else 0
        stats.seconds_forward = time.perf_counter() - began
        if call.status == NO_MEMORY:
            raise MemoryError(f"engine=native, after {call.accepted} steps of {call.batch} samples")
        if call.status != DONE:
            if self._steps is None:
                raise SolveFailed(self._failure(-1, call.accepted, call.rejected))
            who = f" (sample {call.sample} of {call.batch})" if call.batch > 1 else ""
            raise SolveFailed(self._failure(-1, *self._steps[:, call.sample].tolist()) + who)
        # Let go of: the graph of the result holds this object, which must not hold the result.
        ys, self._ys = self._ys, None
        assert ys is not None
        return ys

    def backward(self, grad_ys: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The gradient by y0, and by each parameter.

        Raises:
            SolveFailed: the backward solve of a continuous adjoint gave up.
            MemoryError: as `forward`.
        """
        began = time.perf_counter()
        call, stats = self._call, self.stats
        grad_ys = grad_ys.contiguous()
        grad_y0 = grad_ys.new_empty(grad_ys.shape[1:])
        flat = grad_ys.new_empty(self.library.parameters)
        pointers = (grad_ys.data_ptr(), grad_y0.data_ptr(), flat.data_ptr())
        self.library.handle.node_backward(self._kept, ctypes.byref(call), *pointers)
        stats.nfe_backward = call.nfe_backward
        stats.accepted_backward, stats.rejected_backward = call.accepted_backward, call.rejected_backward
        if call.status == NO_MEMORY:
            raise MemoryError("engine=native, in the gradient of a solve")
        if call.status != DONE:
            why = self._failure(0, call.accepted_backward, call.rejected_backward)
            raise SolveFailed(f"in the backward solve of the adjoint: {why}")
        gradients = flat.split([shape.numel() for shape in self.shapes])
        stats.seconds_backward += time.perf_counter() - began
        return grad_y0, [part.view(shape) for part, shape in zip(gradients, self.shapes, strict=True)]

    def release(self) -> None:
        """Let go of what was kept for the gradient."""
        if self._kept is not None:
            self.library.handle.node_release(self._kept)
            self._kept = None

    def __del__(self) -> None:
        self.release()

    def _failure(self, end: int, accepted: int, rejected: int) -> str:
        call, method = self._call, self.recipe.method
        if call.status == TOO_MANY:
            return spent(method, call.t, call.h, accepted, rejected)
        clock: Tensor = self._holds[2]
        return stopped(method, call.t, float(clock[end]), call.h, finite=call.status != NOT_FINITE)


class Differentiable(torch.autograd.Function):
    """A native solve as an operation of autograd: (solve, y0, *parameters) -> ys."""

    @staticmethod
    def forward(ctx: Any, solve: NativeSolve, y0: Tensor, *parameters: Tensor) -> Tensor:
        """Run the forward solve."""
        ctx.solve = solve
        return solve.forward()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_ys: Tensor) -> tuple[Tensor | None, ...]:
        """Run the gradient's pass; the library copied the parameters, so they may have changed since.

        Raises:
            RuntimeError: several gradients are asked for at once.
        """
        kinds = torch._C._functorch
        if kinds.is_batchedtensor(grad_ys) or kinds.is_legacy_batchedtensor(grad_ys):
            raise RuntimeError(
                "engine=native finds one gradient at a time, not a batch of them (is_grads_batched, vectorize=True, "
                "vmap): use engine=torchdiffeq, for a changed import node_runner.fast_path(False)"
            )
        grad_y0, gradients = ctx.solve.backward(grad_ys)
        wanted = zip(ctx.needs_input_grad[2:], gradients, strict=True)
        return (None, grad_y0 if ctx.needs_input_grad[1] else None, *(g if w else None for w, g in wanted))
