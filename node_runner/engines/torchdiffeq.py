"""The reference engine: torchdiffeq runs the loop, this file counts and explains."""

from __future__ import annotations

import time
import warnings

import torch
from torch import Tensor

from node_runner.engines import ENGINES
from node_runner.engines.extended import functions as extended
from node_runner.engines.extended.original import odeint
from node_runner.engines.failures import NOT_FINITE, spent, stopped, unstored
from node_runner.errors import SolveFailed
from node_runner.settings import Batching
from node_runner.types import DISCRETE, Dynamics, Engine, Gradient, Method, Norm, Solution, SolveStats, Step, offers


@ENGINES.register("torchdiffeq", "torchdiffeq's own loop: the reference that every other engine is tested against")
class TorchdiffeqEngine(Engine):
    """Solves with `torchdiffeq.odeint`, unchanged: the same values, gradients and step counts.

    Methods that the release of torchdiffeq lacks are ours, in its loops (see `node_runner.engines.extended`).

    Times are handed over in the dtype of the state, as torchdiffeq's users do; it keeps its own
    clock in float64.
    """

    name = "torchdiffeq"
    adjoints = frozenset({"off"})

    def __init__(self) -> None:
        pass

    def unsupported(self, method: Method) -> str | None:
        """Every method of torchdiffeq, and those that are added to it, with one step size for the batch."""
        if method.batching is not Batching.shared:
            return "engine=torchdiffeq has one step size for a whole batch: use solver.batching=shared"
        if method.calculus is not None:
            return f"engine=torchdiffeq solves ordinary equations, and solver={method.name} stochastic ones"
        known = method.name in extended.METHODS or method.name in extended.methods()
        return None if known else f"the installed torchdiffeq has no method '{method.name}'"

    def refuses(self, method: Method, f: Dynamics, y0: Tensor, norm: Norm | None, adjoint: str) -> str | None:
        """States without the halves that a method needs, and adjoint=checkpoint, which needs stored states."""
        if method.halves and y0.ndim > 1:
            if getattr(f, "integrands", None):
                return f"solver={method.name} takes a state of two halves, not one with integrals: use solver=dopri5"
            if y0.shape[1] % 2:
                return f"solver={method.name} needs a state of two halves [q, p], got {y0.shape[1]}: use solver=dopri5"
        return unstored("torchdiffeq", adjoint)

    def integrate(
        self, method: Method, f: Dynamics, y0: Tensor, ts: Tensor, *, rtol: float, atol: float, norm: Norm | None,
        gradient: Gradient = DISCRETE,
    ) -> Solution:  # fmt: skip
        """Solve; see `node_runner.types.Integrate`."""
        ts = ts.to(y0.dtype)
        options = dict(method.options)
        if norm is not None:
            options["norm"] = norm
        if method.implicit is not None:
            options["samples"] = getattr(f, "samples", None)
        function = extended.odeint if method.name in extended.METHODS else odeint
        counted = _counted(f, method)
        began = time.perf_counter()
        try:
            with warnings.catch_warnings():
                # SciPy warns that `min_step` is for LSODA alone; torchdiffeq always passes it.
                warnings.filterwarnings("ignore", message="The following arguments have no effect")
                ys = function(counted, y0, ts, rtol=rtol, atol=atol, method=method.name, options=options)
        except AssertionError as error:
            raise SolveFailed(counted.explain(error, ts)) from error
        except ValueError as error:
            # SciPy's implicit solvers say this where the Jacobian overflows.
            if "infs or NaNs" not in str(error):
                raise
            raise SolveFailed(f"{method.name} stopped at t={counted.asked:.6g}: {NOT_FINITE}") from error
        counted.stats.seconds_forward = time.perf_counter() - began
        if len(ys) != len(ts):
            raise SolveFailed(
                f"{method.name} gave up at t={counted.asked:.6g}: the step became too small to move on; "
                "try solver.solver=Radau, a looser tolerance, or a smaller optimizer.lr"
            )
        assert isinstance(ys, Tensor)
        return Solution(ts, ys, counted.stats)


def _counted(f: Dynamics, method: Method) -> _Counted:
    if offers(f, "note"):
        return _NotedAttempts(f, method)
    if method.name == "scipy_solver":
        return _CountedEvaluations(f, method)
    return _CountedAttempts(f, method) if method.adaptive else _CountedSteps(f, method)


class _Counted:
    """The vector field as torchdiffeq sees it: counts what is asked, and ends a solve over budget.

    torchdiffeq looks for callbacks by name on the function that it is given, and warns of one that
    a solver does not have: hence a class for each kind of solver. (Bound methods put on the
    instance would make a reference cycle, which keeps the whole graph of a solve alive.)
    """

    def __init__(self, f: Dynamics, method: Method) -> None:
        self.f = f
        self.method = method
        self.stats = SolveStats()
        self.last: tuple[Tensor, Tensor, Tensor] | None = None
        self.asked = 0.0  # time of the latest evaluation, where no steps are heard of

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        self.stats.nfe_forward += 1
        return self.f(t, y)

    def explain(self, error: AssertionError, ts: Tensor) -> str:
        """One sentence for one of torchdiffeq's assertions."""
        if self.last is None:
            return f"{self.method.name} refused the problem: {error}"
        t, y, dt = (tensor.detach() for tensor in self.last)
        with torch.no_grad():
            finite = bool(torch.isfinite(y).all() and torch.isfinite(self.f(t.to(y.dtype), y)).all())
        return stopped(self.method, float(t), float(ts[-1]), float(dt), finite=finite)


class _CountedSteps(_Counted):
    """Fixed steps: each one that begins is taken."""

    def callback_step(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
        self.stats.accepted += 1


class _CountedAttempts(_Counted):
    """Adaptive steps: accepted or rejected, within the budget of attempts."""

    def callback_step(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
        self.last = (t, y, dt)
        if self.stats.accepted + self.stats.rejected >= self.method.max_steps:
            stats = self.stats
            raise SolveFailed(spent(self.method, float(t.detach()), float(dt.detach()), stats.accepted, stats.rejected))

    def callback_accept_step(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
        self.stats.accepted += 1

    def callback_reject_step(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
        self.stats.rejected += 1


class _NotedAttempts(_CountedAttempts):
    """Adaptive steps, of which the field is handed each that is accepted."""

    def __init__(self, f: Dynamics, method: Method) -> None:
        super().__init__(f, method)
        self.first: Tensor | None = None
        self.slopes: list[Tensor] = []

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        dy = super().__call__(t, y)
        self.slopes.append(dy)
        return dy

    def callback_step(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
        super().callback_step(t, y, dt)
        if self.first is None:
            self.first = self.slopes[0]  # what follows it are guesses at the first step
        self.slopes.clear()

    def callback_accept_step(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
        super().callback_accept_step(t, y, dt)
        assert self.method.tableau is not None and self.first is not None
        step = Step(self.method.tableau, dt.detach(), y, [self.first, *self.slopes])
        self.f.note(step)  # type: ignore[attr-defined]
        self.first = self.slopes[-1]


class _CountedEvaluations(_Counted):
    """SciPy: no steps are heard of, so evaluations are what the budget counts."""

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        self.asked = float(t.detach())
        if self.stats.nfe_forward >= self.method.max_steps:
            raise SolveFailed(
                f"{self.method.name} spent its budget of solver.max_evaluations={self.method.max_steps} at "
                f"t={self.asked:.6g}; try a looser tolerance, solver.solver=Radau, or a smaller optimizer.lr"
            )
        dy = super().__call__(t, y)
        if not torch.isfinite(dy).all():
            # SciPy's solvers do not look: some return NaN, some go on for ever, some raise an error of their own.
            raise SolveFailed(f"{self.method.name} stopped at t={self.asked:.6g}: {NOT_FINITE}")
        return dy
