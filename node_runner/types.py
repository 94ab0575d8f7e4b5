"""What the parts of a solve hand to one another. Data and protocols only.

Shapes in every docstring: B batch, D... state (one or more axes), T times, N samples of a data set,
C classes, P pixels or features. ts: (T,), y0: (B, D...), ys: (T, B, D...).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from node_runner.settings import Batching, Calculus


Dynamics = Callable[[Tensor, Tensor], Tensor]
"""A vector field f(t, y) -> dy/dt. t: () or (B,), y: (B, D...) -> (B, D...).

A solve asks whether it has more: `diffusion` (see `Stochastic`); `note(step)`, which hears of every accepted `Step`;
`check(method, adjoint)`, which raises ConfigError where it cannot be solved by that method with that adjoint;
`time_dependent`, false where t does not matter; `samples` (B, n), the numbers of a flat state that are one sample's;
`counted`, (module, name) of each number in which it counts its calls and on which nothing depends.
"""

Norm = Callable[[Tensor], Tensor]
"""Size of an error, relative to the tolerance, as one number ()."""


class Stochastic(Protocol):
    """Drift and diffusion of dy = f(t, y) dt + g(t, y) dW in the sense of Ito, an nn.Module too.

    Attributes:
        entropy: key of the Brownian path: equal keys, equal paths.
        captured: tensors beside the parameters through which the solution is to be differentiated.
    """

    entropy: int
    captured: tuple[Tensor, ...]

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        """f(t, y): t (), y (B, D) -> (B, D)."""
        ...

    def diffusion(self, t: Tensor, y: Tensor) -> Tensor:
        """g(t, y), (B, D): coordinate i has a Brownian motion of its own, and g_i depends on y_i alone."""
        ...


@dataclass
class SolveStats:
    """What one solve cost. The backward figures arrive when the gradient has been computed.

    Attributes:
        nfe_forward: evaluations of the vector field, each on the whole batch, in the forward solve.
        nfe_backward: evaluations of the vector field while the gradient was computed: those of the
            backward solve of a continuous adjoint. Backpropagation through the solver needs none.
        accepted, rejected: steps of the forward solve (rejected is 0 for fixed steps).
        accepted_backward, rejected_backward: steps of the backward solve.
        seconds_forward: host time in the forward solve.
        seconds_backward: host time in the gradient of the solve.
        backward_began: clock reading when the loss's gradient reached the solution.
        self_timed: the engine measures `seconds_backward` itself.
        kept_bytes: memory of the engine's own, beside autograd's, kept from the forward solve for the gradient.
        steps_of_samples: (2, B) accepted and rejected steps of each sample, where samples have steps of their own;
            `accepted` and `rejected` are then those of the sample that made most attempts, which is what the
            solve took: the others wait for it.
    """

    nfe_forward: int = 0
    nfe_backward: int = 0
    accepted: int = 0
    rejected: int = 0
    accepted_backward: int = 0
    rejected_backward: int = 0
    seconds_forward: float = 0.0
    seconds_backward: float = 0.0
    backward_began: float | None = None
    self_timed: bool = False
    kept_bytes: int = 0
    steps_of_samples: Tensor | None = None

    def book_samples(self, steps: Tensor) -> None:
        """The steps (2, B) that each sample took in the forward solve."""
        self.steps_of_samples = steps
        if steps.numel():
            slowest = steps[:, steps.sum(dim=0).argmax()]
            self.accepted, self.rejected = slowest.tolist()

    def stop_backward(self) -> None:
        """The gradient has been carried through the solve: stop its clock, if it runs."""
        if self.backward_began is not None:
            self.seconds_backward += time.perf_counter() - self.backward_began
            self.backward_began = None

    def add_backward(self, solve: SolveStats) -> None:
        """Book the forward figures of `solve` as part of this solve's gradient."""
        self.nfe_backward += solve.nfe_forward
        self.accepted_backward += solve.accepted
        self.rejected_backward += solve.rejected


def offers(f: Dynamics, method: str) -> bool:
    """Whether a field's class has a method: a module takes microseconds to say that an instance lacks one."""
    return hasattr(type(f), method)


class Solution(NamedTuple):
    """ts: (T,), ys: (T, B, D...) with ys[0] = y0, and what the solve cost."""

    ts: Tensor
    ys: Tensor
    stats: SolveStats


class Integrate(Protocol):
    """Solves dy/dt = f(t, y), y(ts[0]) = y0 at all of `ts`, in either direction of time.

    An f that is `Stochastic` gives dy = f(t, y) dt + g(t, y) dW instead, which is solved forward in time.

    `norm` measures the error of a step relative to the tolerance (default: RMS over the state).

    Raises:
        SolveFailed: underflow of the step, step budget spent, or a state that is not finite.
    """

    def __call__(self, f: Dynamics, y0: Tensor, ts: Tensor, *, norm: Norm | None = None) -> Solution: ...


@dataclass(frozen=True)
class Method:
    """An integration method: data that an engine interprets.

    Attributes:
        name: as torchdiffeq calls it.
        order: of convergence (None where it varies or is not the user's business, as for LSODA).
        adaptive: whether it estimates its error and chooses its step.
        options: the method's own options, by torchdiffeq's names.
        max_steps: attempts (accepted and rejected) that one solve may take.
        differentiable: whether autograd can see through its arithmetic.
        tableau: coefficients of an explicit Runge-Kutta method (None: it is of another kind).
        implicit: coefficients of an implicit Runge-Kutta method (None likewise).
        corrects: whether it iterates a corrector until a tolerance is met.
        halves: whether it treats the two halves of a state [q, p] differently.
        batching: whether the samples of a batch share one step size.
        calculus: of a method for stochastic equations (None: it solves ordinary ones).
    """

    name: str
    order: int | None
    adaptive: bool
    options: Mapping[str, Any] = field(default_factory=dict)
    max_steps: int = 10_000
    differentiable: bool = True
    tableau: Tableau | None = None
    implicit: Tableau | None = None
    corrects: bool = False
    halves: bool = False
    batching: Batching = Batching.shared
    calculus: Calculus | None = None

    @property
    def has_tolerance(self) -> bool:
        """Whether a tolerance plays a part: other fixed steps have no error to hold against it, and implicit ones are
        solved to rounding.
        """
        return self.adaptive or self.corrects


@dataclass(frozen=True)
class Tableau:
    """A Runge-Kutta method: k_i = f(t + c_i h, y + h sum_j a_ij k_j), y1 = y + h sum_i b_i k_i.

    Attributes:
        c: (s,) nodes.
        a: (s, s) strictly lower triangular if the method is explicit.
        b: (s,) weights of the solution.
        error: (s,) weights of its error estimate (empty: there is none, and steps are fixed). An implicit method also
            gives the slope at the start of the step a weight, that with which all of them sum to zero.
        middle: (s,) weights of the solution at t + h/2, from which the dense output is made (empty likewise).
    """

    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    error: tuple[float, ...] = ()
    middle: tuple[float, ...] = ()

    @property
    def stages(self) -> int:
        """Evaluations that a step combines, s."""
        return len(self.c)

    @property
    def ends_in_solution(self) -> bool:
        """Whether the last stage is evaluated at the new solution (first same as last)."""
        return self.b[-1] == 0 and self.a[-1] == self.b


class Step(NamedTuple):
    """An accepted step of an explicit Runge-Kutta method, with the graph that autograd has of it.

    A field with a method `note` is handed each one: solves are then served by engines that can, with adjoint=off.

    tableau: of the method. h: (), its size, a constant. y: (B, D...), the state before it. slopes: k_i of each stage.
    """

    tableau: Tableau
    h: Tensor
    y: Tensor
    slopes: list[Tensor]

    def leading(self, columns: int) -> Step:
        """The step of the first `columns` of a state (B, n)."""
        if self.y.ndim != 2 or self.y.shape[1] == columns:
            return self
        return self._replace(y=self.y[:, :columns], slopes=[slope[:, :columns] for slope in self.slopes])

    def sum(self, weights: Sequence[float]) -> Tensor:
        """H times the weighted sum of the slopes, (B, D...)."""
        used = [(w, slope) for w, slope in zip(weights, self.slopes, strict=False) if w]
        total = torch.zeros_like(self.y)
        for weight, slope in used:
            total = total + weight * slope
        return self.h.to(total.dtype) * total


CONTINUOUS = ("on", "seminorm")
"""Adjoints whose gradient is that of the equation, by a second solve backward in time."""


@dataclass(frozen=True)
class Gradient:
    """The gradient that a solve is to have: the adjoint's name, and the tolerance of its backward solve."""

    adjoint: str = "off"
    rtol: float = 1e-4
    atol: float = 1e-5


DISCRETE = Gradient()
"""The gradient of the computed numbers."""


class HeldBack(str):
    """Why an engine does not serve a solve that it could: it would not pay. Asked for by name, it serves."""

    __slots__ = ()


class Engine(Protocol):
    """The loop that runs a method. Engines extend it: what most of them have in common is written here.

    Attributes:
        name: as configured.
        adjoints: the gradients that `integrate` computes itself; any other adjoint is wrapped around it.
        stochastic: whether it is for stochastic equations, and for no others.
    """

    name: str
    adjoints: frozenset[str]
    stochastic: bool = False

    def candidates(self, steps: int) -> Sequence[Engine]:
        """The engines to choose from, best first: itself alone, but for one that stands for several.

        `steps` are those of the training that is ahead, 0 where there is none.
        """
        return (self,)

    def unsupported(self, method: Method) -> str | None:
        """Why this engine cannot run `method`, or None. Asked once, before a run."""
        ...

    def refuses(self, method: Method, f: Dynamics, y0: Tensor, norm: Norm | None, adjoint: str) -> str | None:
        """Why this engine cannot serve such a solve, or None."""
        ...

    def prepare(
        self, method: Method, f: Dynamics, y0: Tensor, norm: Norm | None, adjoint: str | None
    ) -> Callable[[], object] | None:
        """Work to be done before such a solve runs at speed, such as a compilation, or None. Equal for equal needs.

        Asked before a run, so that compilation is not taken for training; `adjoint` is None without a gradient.
        """
        return None

    def integrate(
        self, method: Method, f: Dynamics, y0: Tensor, ts: Tensor, *, rtol: float, atol: float, norm: Norm | None,
        gradient: Gradient = DISCRETE,
    ) -> Solution:  # fmt: skip
        """Solve; see `Integrate`. `gradient` is one of `adjoints`."""
        ...


class Adjoint(Protocol):
    """How the gradient of a solve is computed: makes one `Integrate` from others."""

    name: str

    def unsupported(self, method: Method) -> str | None:
        """Why this gradient cannot be had from `method`, or None. Asked once, before a run."""
        ...

    def wrap(self, forward: Integrate, backward: Integrate) -> Integrate:
        """A differentiable solve.

        Args:
            forward: solves at the forward tolerance.
            backward: solves at the adjoint tolerance.
        """
        ...
