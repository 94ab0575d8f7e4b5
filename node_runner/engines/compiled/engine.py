"""engine=compiled: torchdiffeq's solves in machine code, a step or all of them in one piece, for any field."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from node_runner.engines import ENGINES
from node_runner.engines.compiled.factory import MOST_KINDS, Factory, Way
from node_runner.engines.compiled.inductor import missing
from node_runner.engines.compiled.making import Making, Rehearsed
from node_runner.engines.compiled.reading import Reading, Unreadable, read
from node_runner.engines.compiled.solve import CompiledSolve, Differentiable, Field
from node_runner.engines.compiled.systems import Augmented, Plain, rms
from node_runner.engines.compiled.trial import trial
from node_runner.engines.failures import imprecise, unheard
from node_runner.errors import ConfigError
from node_runner.settings import Batching, Capture, CountOrZero
from node_runner.types import CONTINUOUS, DISCRETE, Dynamics, Engine, Gradient, Method, Norm, Solution, offers


MOST_PRODUCTS = 300_000
"""Batch times weights up to which the gradient computes steps again, although it could keep their activations."""


@ENGINES.register("compiled", "each step of any field compiled into one piece of machine code, on the CPU and on a GPU")
class CompiledEngine(Engine):
    """Any field that can be written down as a graph: networks, convolutions, flows with their divergence.

    Values, accepted and rejected steps are torchdiffeq's. Gradients are those of the computed numbers, with step
    sizes as constants (torchdiffeq differentiates its estimate of the first step too), or of the continuous adjoint.

    Small states are solved by one graph that makes steps, or attempts at them, until it has arrived, and
    differentiated by another that computes the steps again, the smallest all at once; larger states take a call a
    step. Training steps of experiments/benchmarks/engines and variants of it, x over torchdiffeq in the same process
    (one thread of a two-core AMD EPYC, smallest of 12 interleaved rounds; rows with a star on a busy one):

    | numbers, batch times weights | a call a step | loops | gradients at once |
    |---|---|---|---|
    | 2, 162 (one-spiral) | 17.7 | 30.2 | 34.5 |
    | 8, 648 (four of them) * | | 14.8 | 24.0 |
    | 16, 1,300 (eight) | 11.5 | 15.6 | 7.9 * |
    | 48, 3,900 (24) | 10.6 | 13.3 | |
    | 128, 10,000 (spirals-small) | 9.9 | 10.0 | |
    | 128, 290,000 (spirals) * | 5.5 | 5.6 | |

    Training steps of 100 steps of rk4, in milliseconds of a busy CPU (smallest of 24), and the seconds of it that the
    first one takes with its compilation:

    | numbers, batch times weights | a call a step | loops | gradients at once |
    |---|---|---|---|
    | 2, 162 | 5.8 (13.4 s, the first of the process) | 3.0 (6.8 s) | 2.1 (7.7 s) |
    | 8, 648 | 7.9 | 4.6 | 3.8 |
    | 16, 1,300 | 9.9 (4.9 s) | 6.9 (7.3 s) | 8.0 (9.1 s) |
    | 64, 5,200 | 10.9 (4.8 s) | 8.5 (7.4 s) | |
    | 64, 145,000 | 18.2 (5.2 s) | 18.3 (9.2 s) | |
    | 128, 10,000 | 12.3 (4.7 s) | 11.1 (7.3 s) | |

    These solves are long. A loop pays from four or five steps of dopri5 on, and costs a tenth more where there are
    three; gradients at once take as long whatever the number of steps is. In milliseconds of a busy CPU (smallest of
    7), by accepted steps:

    | numbers, weights | steps | a call a step | loops | gradients at once |
    |---|---|---|---|---|
    | 2, 162 | 3, 9, 21 | 0.98, 1.52, 2.32 | 1.03, 1.33, 1.76 | 1.17, 1.33, 1.47 |
    | 2, 4,482 | 3, 9, 21 | 1.16, 1.78, 2.96 | 1.22, 1.44, 2.04 | 1.69, 1.71, 1.96 |
    | 4, 162 | 6, 13, 20 | 1.20, 1.94, 2.47 | 1.24, 1.58, 1.85 | 1.49, 1.62, 1.70 |
    | 8, 162 | 3, 13, 28 | 1.08, 1.97, 3.61 | 1.14, 1.58, 2.43 | 2.23, 2.38, 2.71 |
    | 8, 4,482 | 6, 18, 30 | 1.78, 4.48, 6.71 | 1.70, 3.44, 4.65 | 5.27, 7.04, 6.58 |

    Adaptive loops take about a second longer to compile for a small network, and three times as long for one that
    differentiates itself (a Hamiltonian of 8,706 weights: 83 seconds of a CPU instead of 28).

    Args:
        loop_up_to: numbers in a state that is solved by a loop, which hands all that it writes down from attempt to
            attempt. Where a gradient with adjoint=off is wanted, batch times weights must not exceed `MOST_PRODUCTS`
            either: a call a step keeps activations, which costs less than to compute them again.
        at_once_up_to: numbers in a state of which the gradients of all steps are found at once, from Jacobians.
        at_once_from: steps of a solve, for each of these numbers, from which they are.
        capture: on a GPU, loops are CUDA graphs of several attempts, with one look of the host a replay, of compiled
            code or, where Inductor is missing or not worth its time, of the operations as they are written. This has
            not been run on a GPU yet, and so is nobody's choice but the user's: with off, a GPU has a call a step.

    Attributes:
        compile_seconds: spent compiling.
    """

    name = "compiled"
    adjoints = frozenset(("off", "checkpoint", *CONTINUOUS))
    _compiles = True

    def __init__(
        self,
        *,
        loop_up_to: CountOrZero = 64,
        at_once_up_to: CountOrZero = 8,
        at_once_from: CountOrZero = 8,
        capture: Capture = Capture.off,
    ) -> None:
        self.loop_up_to, self.capture = loop_up_to, capture
        self.at_once_up_to, self.at_once_from = at_once_up_to, at_once_from
        self.compile_seconds = 0.0
        self._verdicts: dict[Any, tuple[str | None, list[Any]]] = {}

    @classmethod
    def uncompiled(cls, **settings: Any) -> CompiledEngine:
        """The same engine with its steps called as they are written, for tests that need no compiler."""
        engine = cls(**settings)
        engine._compiles = False
        return engine

    def unsupported(self, method: Method) -> str | None:
        """Explicit Runge-Kutta methods, with one step size for the batch."""
        if method.batching is not Batching.shared:
            return "engine=compiled has one step size for a whole batch: use solver.batching=shared"
        if method.tableau is None:
            return f"engine=compiled runs explicit Runge-Kutta methods, and solver={method.name} is none here"
        return None

    def refuses(self, method: Method, f: Dynamics, y0: Tensor, norm: Norm | None, adjoint: str) -> str | None:
        """Fields that are no graph, or that a graph would compute differently."""
        if offers(f, "note"):
            return unheard("compiled")
        if reason := imprecise("compiled", y0):
            return reason
        if adjoint in CONTINUOUS and torch.is_grad_enabled() and not isinstance(f, nn.Module):
            return _parameterless(adjoint, f)
        if self.capture is not Capture.off and self._compiles and y0.device.type != "cuda":
            return "engine.capture is for a state on a GPU: use engine.capture=off"
        if self.makes_code and (lacking := missing(y0.device.type)):
            return f"engine=compiled cannot compile here: {lacking}"
        try:
            reading = read(f, norm)
        except Unreadable as reason:
            return _refusal(f, str(reason))
        key = (reading.key, y0.shape, y0.dtype, y0.device)
        if key not in self._verdicts:
            if len(self._verdicts) >= MOST_KINDS:
                self._verdicts.clear()
            why = trial(f, norm, reading, y0)
            # With what the key knows by its address, which must not be used again.
            self._verdicts[key] = (None if why is None else _refusal(f, why), reading.held)
        return self._verdicts[key][0]

    def prepare(self, method: Method, f: Dynamics, y0: Tensor, norm: Norm | None, adjoint: str | None) -> Making | None:
        """Compile the steps of such a solve and of its gradient, or find them."""
        if not self.makes_code:
            return None
        key = (read(f, norm).key, y0.shape, y0.dtype, y0.device, method.name, adjoint)
        return Making(key, Rehearsed(self, method, f, norm, y0.detach(), adjoint))

    def integrate(
        self, method: Method, f: Dynamics, y0: Tensor, ts: Tensor, *, rtol: float, atol: float, norm: Norm | None,
        gradient: Gradient = DISCRETE,
    ) -> Solution:  # fmt: skip
        """Solve; see `node_runner.types.Integrate`.

        Raises:
            ConfigError: the field cannot be compiled, or a gradient is wanted for the output times.
        """
        if torch.is_grad_enabled() and ts.requires_grad:
            raise ConfigError("engine=compiled gives no gradient for the output times: use engine=torchdiffeq")
        try:
            reading = read(f, norm)
        except Unreadable as reason:
            raise ConfigError(f"{_refusal(f, str(reason))}; use engine=torchdiffeq") from reason
        wanted = tuple(i for i, tensor in enumerate(reading.tensors) if tensor.requires_grad)
        tracked = torch.is_grad_enabled() and bool(y0.requires_grad or wanted)
        field = self._field(method, f, y0, norm, reading, wanted, gradient.adjoint if tracked else None)
        solve = CompiledSolve(
            method, field, y0, ts, rtol, atol, gradient if tracked else None, lambda: self.compile_seconds
        )
        ys: Tensor = Differentiable.apply(solve, y0, *field.tensors) if tracked else solve.forward(y0)
        return Solution(ts.to(y0.dtype), ys, solve.stats)

    def _field(
        self, method: Method, f: Dynamics, y0: Tensor, norm: Norm | None, reading: Reading, wanted: tuple[int, ...],
        adjoint: str | None,
    ) -> Field:  # fmt: skip
        measure = norm or rms
        tensors = [reading.tensors[i] for i in wanted]
        looped = self.loops(y0, sum(tensor.numel() for tensor in tensors), adjoint)
        way = Way(self.makes_code, self.capture, looped, self.at_once_up_to, self.at_once_from, self._book)
        make = Factory(method, reading, wanted, y0, way)
        forward = make(Plain(f, measure))
        if adjoint not in CONTINUOUS:
            return Field(tensors, [], forward, None)
        if not isinstance(f, nn.Module):
            raise ConfigError(_parameterless(adjoint, f))
        # In the order of f.parameters(), as the reference's adjoint has them.
        where = {id(tensor): i for i, tensor in enumerate(tensors)}
        parameters = [where[id(p)] for p in f.parameters() if p.requires_grad]
        shapes = [tensors[i].shape for i in parameters]
        positions = [wanted[i] for i in parameters]
        augmented = Augmented(f, measure, y0.shape, positions, shapes, seminorm=adjoint == "seminorm")
        return Field(tensors, parameters, forward, make(augmented, f"adjoint={adjoint}"))

    def loops(self, y0: Tensor, weights: int, adjoint: str | None) -> bool:
        """Whether the solve of a state is a loop, for a field of so many weights."""
        if y0.device.type != "cpu" and self.capture is Capture.off:
            return False
        if adjoint == "off" and len(y0) * weights > MOST_PRODUCTS:
            return False
        return y0.numel() <= self.loop_up_to

    @property
    def makes_code(self) -> bool:
        """Whether what it calls is compiled."""
        return self._compiles and self.capture is not Capture.eager

    def _book(self, seconds: float) -> None:
        self.compile_seconds += seconds


def _parameterless(adjoint: str, f: Dynamics) -> str:
    return (
        f"adjoint={adjoint} needs the vector field to be an nn.Module, whose parameters it can find; "
        f"got {type(f).__name__}"
    )


def _refusal(f: Dynamics, why: str) -> str:
    return f"engine=compiled cannot serve {_name(f)}: the field {why}"


def _name(f: Dynamics) -> str:
    """The innermost field's name, behind the wrappers of models."""
    inner = getattr(f, "field", None)
    if isinstance(inner, nn.Module):
        return _name(inner)
    return type(f).__name__ if isinstance(f, nn.Module) else getattr(f, "__name__", type(f).__name__)
