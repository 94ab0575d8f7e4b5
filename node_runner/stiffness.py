"""How stiff a solve is, measured while a run trains, and what to do about it at the end.

solver/stiffness = mean step x fastest rate of decay, without a unit: how far along the fastest decaying mode a step
goes. An explicit method is stable to a limit of its own (3.3 for dopri5); where its steps are at that limit, it is
stability that keeps them short and not accuracy, and the field is stiff for it. Of an implicit method it tells how
many times more steps an explicit one would need, about a third of it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from node_runner.settings import Batching
from node_runner.solving import Solve, Solved
from node_runner.types import Dynamics, Method, Tableau


TIMES, ITERATIONS = 4, 6
"""Output times that are looked at, at the most, and products with the Jacobian at each."""

NEAR = 0.7
"""Share of a method's limit from which its steps count as bound by it."""

FEW = 10
"""Accepted steps of a solve below which it does not matter what bounds them."""


class Stiffness:
    """Measures the stiffness of a training step's solve.

    Args:
        solve: of the run.
    """

    def __init__(self, solve: Solve) -> None:
        self._solve = solve
        self._solved: list[Solved] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Solves within this block are looked at by `measured`."""
        with self._solve.watched() as self._solved:
            yield

    def measured(self) -> dict[str, float]:
        """{"solver/stiffness": ...} of the longest of the solves that were watched; nothing without any."""
        solves = [solved for solved in self._solved if solved.solution.stats.accepted]
        self._solved = []
        if not solves:
            return {}
        longest = max(solves, key=lambda solved: solved.solution.stats.accepted)
        return {"solver/stiffness": stiffness(longest)}


def stiffness(solved: Solved) -> float:
    """Mean step times the fastest decay of any sample, the mean over the times of the solve."""
    f: Any = solved.f
    ts, ys, stats = solved.solution
    if hasattr(f, "integrands"):  # a state with integrals, which steer no step
        ys, f = f.split(ys)[0], f.field
    places = torch.linspace(0, len(ts) - 1, 2 * TIMES + 1)[1::2].round().long().unique().tolist()
    rates = [decay(f, ts[i].detach(), ys[i].detach()).max() for i in places]
    span = float((ts[-1] - ts[0]).abs().detach())
    return span / stats.accepted * float(torch.stack(rates).mean())


def decay(f: Dynamics, t: Tensor, y: Tensor) -> Tensor:
    """Fastest rate of decay (B,) of each sample: minus the real part of the eigenvalue that dominates its Jacobian.

    Zero where that one grows. By the power method on the transposed Jacobian, whose eigenvalues are the same, and
    Rayleigh's quotient: close where one mode is much faster than the others, which is what stiffness is.

    Args:
        f: the field.
        t: ().
        y: (B, D...).
    """
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y)
    with torch.enable_grad():
        y = y.detach().requires_grad_(True)
        dy = f(t, y)
    if not dy.requires_grad:
        return y.new_zeros(len(y))
    tiny = torch.finfo(y.dtype).tiny
    for _ in range(ITERATIONS):
        (pulled,) = torch.autograd.grad(dy, y, v, retain_graph=True, allow_unused=True)
        if pulled is None:
            return y.new_zeros(len(y))
        rows, before = pulled.reshape(len(y), -1), v.reshape(len(y), -1)
        quotient = (rows * before).sum(dim=1) / before.square().sum(dim=1).clamp(min=tiny)
        v = pulled / rows.norm(dim=1).clamp(min=tiny).view(-1, *[1] * (y.ndim - 1))
    return (-quotient).clamp(min=0).nan_to_num()


@functools.cache
def stability_limit(tableau: Tableau) -> float:
    """The largest x at which an explicit method is stable on y' = -y with steps of x: |R(-z)| <= 1 up to there.

    R(z) = 1 + z b^T (I - z A)^-1 1 (Hairer and Wanner, Solving ODEs II, 2nd ed., section IV.2).
    """
    a, b = torch.tensor(tableau.a, dtype=torch.float64), torch.tensor(tableau.b, dtype=torch.float64)
    z = -torch.arange(0.005, 50, 0.005, dtype=torch.float64)[:, None]
    growth = torch.ones_like(z)
    power = torch.ones(len(b), dtype=torch.float64)
    for order in range(1, len(b) + 1):  # A is nilpotent
        growth = growth + z**order * (b @ power)
        power = a @ power
    unstable = (growth.abs() > 1 + 1e-9).squeeze(1).nonzero()
    return float(-z[unstable[0, 0] - 1]) if len(unstable) else float("inf")


def advice(method: Method, value: float | None, accepted: float | None) -> str | None:
    """What to do about a run whose explicit solver is bound by stability, or None.

    Args:
        method: of the run.
        value: its solver/stiffness, if it was measured.
        accepted: steps of a solve.
    """
    if method.tableau is None or method.batching is not Batching.shared or value is None or accepted is None:
        return None
    limit = stability_limit(method.tableau)
    if value < NEAR * limit or accepted < FEW:
        return None
    return (
        f"solver/stiffness {value:.2g}: the steps of {method.name} are bound by stability, whose limit is {limit:.2g}, "
        "and not by accuracy; try solver=radau5, which has no such limit"
    )
