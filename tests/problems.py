"""Problems with known solutions, fields that count, and short ways to a method and a solve."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torchdiffeq
from torch import Tensor, nn

from node_runner.adjoints import ADJOINTS
from node_runner.engines import ENGINES
from node_runner.engines.extended import functions as extended
from node_runner.settings import ToleranceConfig
from node_runner.solvers import SOLVERS
from node_runner.solving import Solve, Tolerances
from node_runner.types import Dynamics, Engine, Integrate, Method, Solution


class Problem(NamedTuple):
    """dy/dt = field(t, y) with y(0) = y0 (B, D), and its solution: ts (T,) -> (T, B, D)."""

    field: Dynamics
    y0: Tensor
    exact: Callable[[Tensor], Tensor]


def linear(dtype: torch.dtype = torch.float64) -> Problem:
    """Three coupled, damped variables; the solution is a matrix exponential."""
    a = torch.tensor([[-0.3, 2.0, 0.0], [-2.0, -0.3, 0.5], [0.0, -0.5, -0.1]], dtype=torch.float64)
    y0 = torch.tensor([[1.0, 0.0, -0.5], [0.2, 1.5, 0.3], [-1.0, 0.4, 0.0], [0.0, 0.0, 2.0]], dtype=torch.float64)

    def exact(ts: Tensor) -> Tensor:
        flows = torch.linalg.matrix_exp(ts.double()[:, None, None] * a)  # (T, D, D)
        return torch.einsum("tij,bj->tbi", flows, y0).to(dtype)

    return Problem(lambda t, y: y @ a.T.to(y), y0.to(dtype), exact)


def oscillator(dtype: torch.dtype = torch.float64) -> Problem:
    """A harmonic oscillator of frequency 3: position and velocity."""
    omega = 3.0
    y0 = torch.tensor([[1.0, 0.0], [0.5, -2.0]], dtype=torch.float64)

    def exact(ts: Tensor) -> Tensor:
        cos, sin = torch.cos(omega * ts.double())[:, None], torch.sin(omega * ts.double())[:, None]
        x, v = y0.T
        return torch.stack((x * cos + v / omega * sin, v * cos - omega * x * sin), dim=-1).to(dtype)

    def field(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack((y[:, 1], -(omega**2) * y[:, 0]), dim=1)

    return Problem(field, y0.to(dtype), exact)


def nonlinear(dtype: torch.dtype = torch.float64) -> Problem:
    """Logistic growth beside y' = y cos t: neither linear nor autonomous, so that all order conditions count."""
    y0 = torch.tensor([[0.25, 1.0]], dtype=dtype)

    def exact(ts: Tensor) -> Tensor:
        ts = ts.double()
        return torch.stack((1 / (1 + 3 * torch.exp(-2 * ts)), torch.exp(torch.sin(ts))), dim=-1)[:, None].to(dtype)

    def field(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack((2 * y[:, 0] * (1 - y[:, 0]), torch.cos(t) * y[:, 1]), dim=1)

    return Problem(field, y0, exact)


class SmallField(nn.Module):
    """A tanh network of y and, if it is time-dependent, t, in float64."""

    def __init__(self, dim: int = 3, width: int = 8, *, time_dependent: bool = True, seed: int = 7) -> None:
        super().__init__()
        self.time_dependent = time_dependent
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first = nn.Linear(dim + time_dependent, width, dtype=torch.float64)
            self.second = nn.Linear(width, dim, dtype=torch.float64)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """t: () or (B,), y: (B, D) -> (B, D)."""
        if self.time_dependent:
            y = torch.cat((y, t.to(y.dtype).reshape(-1, 1).expand(len(y), 1)), dim=1)
        return self.second(torch.tanh(self.first(y)))


class CountingField(nn.Module):
    """A field that counts its own calls, as torchdiffeq's users write it."""

    def __init__(self, field: Dynamics) -> None:
        super().__init__()
        self.field = field
        self.calls = 0

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        self.calls += 1
        return self.field(t, y)


class StepCounter(CountingField):
    """What the counters of both kinds of method find."""

    def __init__(self, field: Dynamics) -> None:
        super().__init__(field)
        self.accepted = 0
        self.rejected = 0
        self.sizes: list[float] = []


class FixedStepCounter(StepCounter):
    """Counts the steps of a fixed-step method by torchdiffeq's callback."""

    def callback_step(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
        self.accepted += 1
        self.sizes.append(float(dt))


class AdaptiveStepCounter(StepCounter):
    """Counts the steps of an adaptive method by torchdiffeq's callbacks."""

    def callback_step(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
        self.sizes.append(float(dt))

    def callback_accept_step(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
        self.accepted += 1

    def callback_reject_step(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
        self.rejected += 1


def make_method(name: str, /, **options: Any) -> Method:
    """A solver by name, its settings given here or left at their defaults."""
    return SOLVERS.get(name)(name, **options)


def has_option(name: str, option: str) -> bool:
    """Whether a solver has a setting of this name."""
    return any(parameter.name == option for parameter in SOLVERS.signature(name).parameters)


def stepping(name: str, size: float, /, **options: Any) -> Method:
    """A solver that takes steps of `size` and no others.

    An adaptive one takes its first step from `first_step`, may take none longer, and accepts one of
    `min_step` whatever its error.
    """
    if has_option(name, "step_size"):
        return make_method(name, step_size=size, **options)
    return make_method(name, first_step=size, min_step=size, max_step=size, **options)


METHODS = {name: method for name in SOLVERS.names() if (method := make_method(name)).calculus is None}
"""Every solver of ordinary equations."""
FIXED = [name for name, method in METHODS.items() if not method.adaptive]
STEPPING = [name for name in METHODS if has_option(name, "step_size") or has_option(name, "first_step")]
"""Solvers that can be made to take steps of one size: all but those that run outside PyTorch."""
ADAPTIVE = [name for name in STEPPING if METHODS[name].adaptive]
IMPLICIT = [name for name in FIXED if METHODS[name].implicit is not None]
"""Implicit methods that take the steps they are told to."""
EXPLICIT_FIXED = [name for name in FIXED if name not in IMPLICIT]


OF_THE_REFERENCE = [name for name in ADJOINTS.names() if name != "checkpoint"]
"""Adjoints that need nothing of an engine but its solves: all but the one from accepted states."""


def torchdiffeq_for(name: str) -> Any:
    """The module whose `odeint` and `odeint_adjoint` know a method: torchdiffeq, or its copy with our methods."""
    return extended.package() if name in extended.METHODS else torchdiffeq


def engine_named(name: str) -> Engine:
    """An engine by name; the compiled one calls its steps as they are written, since compiling takes seconds."""
    if name == "compiled":
        from node_runner.engines.compiled.engine import CompiledEngine

        return CompiledEngine.uncompiled()
    return ENGINES.get(name)()


def solve(
    method: Method,
    field: Dynamics,
    y0: Tensor,
    ts: Tensor,
    *,
    rtol: float = 1e-6,
    atol: float = 1e-6,
    engine: str = "torchdiffeq",
    **more: Any,
) -> Solution:
    """One solve by an engine."""
    return engine_named(engine).integrate(method, field, y0, ts, rtol=rtol, atol=atol, norm=more.pop("norm", None))


def differentiable(
    method: Method, adjoint: str = "off", *, rtol: float = 1e-6, atol: float = 1e-6, engine: str = "torchdiffeq"
) -> Integrate:
    """A solve with an adjoint, as a run has it."""
    tolerances = Tolerances(ToleranceConfig(rtol=rtol, atol=atol))
    return Solve(engine_named(engine), method, ADJOINTS.get(adjoint)(), tolerances)


def slope(sizes: list[float], errors: list[float]) -> float:
    """Slope of log error against log step size, by least squares."""
    x = torch.tensor([math.log(size) for size in sizes], dtype=torch.float64)
    y = torch.tensor([math.log(error) for error in errors], dtype=torch.float64)
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / (x * x).sum())
