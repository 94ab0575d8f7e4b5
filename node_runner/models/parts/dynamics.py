"""Wrappers that turn a vector field into what is solved: shifted and stretched in time, widened by integrals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from node_runner.errors import ConfigError
from node_runner.forms import FieldForm, Integral, form_of
from node_runner.learning import IntegralRegulariser, Integrand, Regulariser, StepRegulariser
from node_runner.settings import Batching
from node_runner.types import Integrate, Method, Norm, SolveStats, Step


class Shifted(nn.Module):
    """f(t + t0, y): lets samples that start at different times share one solve.

    Args:
        field: f.
        t0: (B,) starting time of each sample.
    """

    def __init__(self, field: nn.Module, t0: Tensor) -> None:
        super().__init__()
        self.field = field
        self.t0 = t0

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """t: (), y: (B, D...) -> (B, D...)."""
        return self.field(t + self.t0, y)

    def form(self) -> FieldForm | None:
        """What it is made of, for engines that write it out."""
        inner = form_of(self.field)
        return None if inner is None else replace(inner, start=self.t0)


class UnitTime(nn.Module):
    """dy/ds = T f(t0 + s T, y) for s in [0, 1]: samples that cover times of their own share one solve.

    Args:
        field: f.
        duration: (B,) T, which has no gradient.
        t0: (B,) time at which each sample starts (None: 0).
    """

    def __init__(self, field: nn.Module, duration: Tensor, t0: Tensor | None = None) -> None:
        super().__init__()
        self.field = field
        self.time_dependent = getattr(field, "time_dependent", True)
        self.duration = duration
        self.t0 = t0

    def forward(self, s: Tensor, y: Tensor) -> Tensor:
        """s: (), y: (B, D) -> (B, D)."""
        since = s * self.duration
        return self.duration[:, None] * self.field(since if self.t0 is None else self.t0 + since, y)


class Widened(nn.Module):
    """A field with integrals beside its state: (B, n + K), n numbers of state and K integrals.

    d/dt [y, q_1..q_K] = [f(t, y), g_1(t, y, f)..g_K(t, y, f)]

    Args:
        field: f.
        shape: (D...) of one state.
        integrands: the g_k of this solve.
    """

    def __init__(self, field: nn.Module, shape: tuple[int, ...], integrands: Sequence[Integrand]) -> None:
        super().__init__()
        self.field = field
        self.shape = shape
        self.numel = torch.Size(shape).numel()
        self.integrands = list(integrands)

    def begin(self, y0: Tensor) -> Tensor:
        """The widened initial state: y0 (B, D...) -> (B, n + K), integrals at zero."""
        flat = y0.reshape(len(y0), self.numel)
        return torch.cat((flat, flat.new_zeros(len(y0), len(self.integrands))), dim=1)

    def split(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """(..., B, n + K) -> states (..., B, D...), integrals (..., B, K)."""
        flat, integrals = states[..., : self.numel], states[..., self.numel :]
        return flat.reshape(*flat.shape[:-1], *self.shape), integrals

    def forward(self, t: Tensor, state: Tensor) -> Tensor:
        """t: (), state: (B, n + K) -> (B, n + K)."""
        tracked = torch.is_grad_enabled()
        y, _ = self.split(state)
        # Integrands differentiate f by y, also inside a solve that keeps no graph.
        with torch.enable_grad():
            if not tracked or not y.requires_grad:
                y = y.detach().requires_grad_(True)
            if any(getattr(integrand, "differentiates_time", False) for integrand in self.integrands):
                t = t.detach().requires_grad_(True)
            dy = self.field(t, y)
            integrals = [integrand(t, y, dy) for integrand in self.integrands]
            change = torch.cat((dy.reshape(len(y), self.numel), torch.stack(integrals, dim=1)), dim=1)
        return change if tracked else change.detach()

    def form(self) -> FieldForm | None:
        """What it is made of, if all that is integrated beside the state has a name that engines know."""
        inner = form_of(self.field)
        integrals = [integral_of(integrand) for integrand in self.integrands]
        known = tuple(integral for integral in integrals if integral is not None)
        if inner is None or len(self.shape) != 1 or len(known) < len(integrals):
            return None
        noise = next((i.noise for i in self.integrands if isinstance(i, Hutchinson)), None)
        return replace(inner, integrals=known, noise=noise)


class Noted(nn.Module):
    """A field that hears of the steps which a solve takes along it.

    Args:
        field: f.
        regularisers: that look at the steps, by name.

    Attributes:
        steps: that were accepted.
    """

    def __init__(self, field: nn.Module, regularisers: Mapping[str, StepRegulariser]) -> None:
        super().__init__()
        self.field = field
        self.regularisers = dict(regularisers)
        self.steps: list[Step] = []

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """t: (), y: (B, D...) -> (B, D...)."""
        dy: Tensor = self.field(t, y)
        return dy

    def note(self, step: Step) -> None:
        """Hear of an accepted step."""
        self.steps.append(step)

    def check(self, method: Method, adjoint: str) -> None:
        """Refuse solves whose steps autograd does not see, or that do not tell what is looked at.

        Raises:
            ConfigError: the adjoint, the method or its batching does not fit.
        """
        names = ",".join(self.regularisers)
        if adjoint != "off":
            raise ConfigError(f"regulariser={names} differentiates the solver's steps, and adjoint={adjoint} does not "
                              "keep them: use adjoint=off")  # fmt: skip
        if method.batching is not Batching.shared:
            raise ConfigError(f"regulariser={names} looks at steps that a batch shares: use solver.batching=shared")
        if method.tableau is None or not method.adaptive:
            raise ConfigError(f"regulariser={names} needs an explicit Runge-Kutta method that chooses its step, and "
                              f"solver={method.name} is none: use solver=dopri5")  # fmt: skip
        for regulariser in self.regularisers.values():
            regulariser.check(method)

    def sums(self, columns: int, like: Tensor) -> dict[str, Tensor]:
        """What each regulariser makes of the first `columns` of the steps, mean over the batch, ()."""
        found = {}
        for name, regulariser in self.regularisers.items():
            terms = [regulariser.of_step(step.leading(columns)).mean() for step in self.steps]
            found[name] = torch.stack(terms).sum() if terms else like.new_zeros(())
        return found


class Penalised(NamedTuple):
    """States (T, B, D...), integrals (T, B, K) that a model wants itself, and penalties () by name."""

    ys: Tensor
    integrals: Tensor
    penalties: dict[str, Tensor]
    stats: SolveStats


def penalised_solve(
    solve: Integrate,
    field: nn.Module,
    shape: tuple[int, ...],
    y0: Tensor,
    ts: Tensor,
    regularisers: Mapping[str, Regulariser],
    own: Sequence[Integrand] = (),
    pace: Callable[[nn.Module], nn.Module] | None = None,
) -> Penalised:
    """Solve with what regularisers integrate beside the state, which does not steer the steps, or note of the steps.

    Args:
        solve: the differentiable solve.
        field: of states (B, D...) of `shape`.
        shape: (D...) of one state.
        y0: (B, D...) initial states.
        ts: (T,) times.
        regularisers: by name.
        own: integrands of the model, part of the answer, which steer the step size.
        pace: what is put around the field and the integrands for samples that have times of their own, as `UnitTime`.
    """
    integrated = {name: r.begin(y0) for name, r in regularisers.items() if isinstance(r, IntegralRegulariser)}
    noting = {name: r for name, r in regularisers.items() if isinstance(r, StepRegulariser)}
    numel = torch.Size(shape).numel()
    wide = Widened(field, shape, [*own, *integrated.values()])
    widened = bool(own or integrated)
    f: nn.Module = wide if widened else field
    if pace is not None:
        f = pace(f)
    noted = Noted(f, noting) if noting else None
    norm = leading_norm(numel + len(own)) if integrated else None
    solution = solve(f if noted is None else noted, wide.begin(y0) if widened else y0, ts, norm=norm)
    ys, integrals = wide.split(solution.ys) if widened else (solution.ys, solution.ys.new_zeros(len(ts), len(y0), 0))
    penalties = dict(zip(integrated, integrals[-1, :, len(own) :].mean(dim=0), strict=True)) if integrated else {}
    if noted is not None:
        penalties |= noted.sums(numel, y0)
    penalties = {name: penalties[name] for name in regularisers}
    return Penalised(ys, integrals[..., : len(own)], penalties, solution.stats)


class LeadingNorm:
    """RMS norm over the first `columns` of a state (B, n): later ones do not steer the step size."""

    def __init__(self, columns: int) -> None:
        self.columns = columns

    def __call__(self, error: Tensor) -> Tensor:
        """error: (B, n) -> ()."""
        return error[:, : self.columns].abs().pow(2).mean().sqrt()


def leading_norm(columns: int) -> Norm:
    """A `LeadingNorm`."""
    return LeadingNorm(columns)


def integral_of(integrand: Integrand) -> Integral | None:
    """By what name engines know an integrand: what its attribute `integral` says."""
    if integrand is divergence_exact or isinstance(integrand, Hutchinson):
        return Integral.divergence
    found = getattr(integrand, "integral", None)
    return found if isinstance(found, Integral) else None


def divergence_exact(t: Tensor, y: Tensor, dy: Tensor) -> Tensor:
    """Trace of df/dy by one vector-Jacobian product a dimension: (B, D...) -> (B,)."""
    flat = dy.reshape(len(dy), -1)
    trace = flat.new_zeros(len(flat))
    for i in range(flat.shape[1]):
        (row,) = torch.autograd.grad(flat[:, i].sum(), y, create_graph=True)
        trace = trace + row.reshape(len(row), -1)[:, i]
    return trace


class Hutchinson:
    """Unbiased estimate e^T (df/dy) e of the trace, with e = noise (B, D...) fixed for the solve.

    Source: Hutchinson (1989); for flows Grathwohl et al., FFJORD (2019).
    """

    def __init__(self, noise: Tensor) -> None:
        self.noise = noise

    def __call__(self, t: Tensor, y: Tensor, dy: Tensor) -> Tensor:
        """t: (), y and dy: (B, D...) -> (B,)."""
        (pulled,) = torch.autograd.grad(dy, y, self.noise, create_graph=True)
        return (pulled * self.noise).reshape(len(y), -1).sum(dim=1)
