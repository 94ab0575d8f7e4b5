"""The same training step by other libraries: torchdiffeq, torchode, and diffrax on JAX.

torchode and diffrax are optional: `pip install torchode diffrax`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from engine_problems import Problem
from torch import Tensor, nn
from torchdiffeq import odeint, odeint_adjoint

from node_runner.forms import form_of


Step = Callable[[], None]


class Contestant(NamedTuple):
    """One way to do the step.

    step: loss, gradient and an Adam update whose learning rate is 0, so that the work is always the same.
    gradient: of all parameters after a step, flat, or None where another framework holds it.
    facts: evaluations and steps, by name, after a step.
    first_s: seconds that making it took already (compilation).
    """

    name: str
    step: Step
    gradient: Callable[[], Tensor | None]
    facts: Callable[[], dict[str, Any]]
    first_s: float = 0.0


def flat_gradient(field: nn.Module) -> Tensor:
    """Of all parameters."""
    return torch.cat([p.grad.reshape(-1) for p in field.parameters() if p.grad is not None]).double()


def torch_step(problem: Problem, solve: Callable[[], Tensor]) -> Step:
    """As a user of torchdiffeq writes it."""
    optimizer = torch.optim.Adam(problem.field.parameters(), lr=0.0)

    def step() -> None:
        optimizer.zero_grad()
        problem.loss(solve()).backward()
        optimizer.step()

    return step


def torchdiffeq_steps(problem: Problem) -> Iterator[Contestant]:
    """By backpropagation and by the adjoint."""
    options = {"rtol": problem.rtol, "atol": problem.atol, "method": problem.method.name}
    for name, solver in (("torchdiffeq", odeint), ("torchdiffeq, adjoint", odeint_adjoint)):
        step = torch_step(problem, lambda solver=solver: solver(problem.field, problem.y0, problem.ts, **options))
        yield Contestant(name, step, lambda: flat_gradient(problem.field), dict)


def torchode_steps(problem: Problem) -> Iterator[Contestant]:
    """Its dopri5 takes steps of its own for each sample: other work than a shared step. Backpropagation."""
    if importlib.util.find_spec("torchode") is None or problem.method.name != "dopri5" or problem.y0.ndim != 2:
        return
    import torchode

    field, size = problem.field, len(problem.y0)

    class ByTheLast(nn.Module):
        """torchode hands over the time of every sample (B,)."""

        def __init__(self) -> None:
            super().__init__()
            self.field = field

        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return self.field(t, y)

    term = torchode.ODETerm(ByTheLast())
    method = torchode.Dopri5(term=term)
    controller = torchode.IntegralController(atol=problem.atol, rtol=problem.rtol, term=term)
    adjoint = torchode.AutoDiffAdjoint(method, controller)
    ivp = torchode.InitialValueProblem(y0=problem.y0, t_eval=problem.ts.expand(size, -1))
    facts: dict[str, Any] = {}

    def solve() -> Tensor:
        solution = adjoint.solve(ivp)
        facts["NFE forward"] = int(solution.stats["n_f_evals"].max())
        return solution.ys.transpose(0, 1)

    yield Contestant(
        "torchode (a step a sample)", torch_step(problem, solve), lambda: flat_gradient(field), lambda: facts
    )


def diffrax_steps(problem: Problem, *, per_sample: bool = False) -> Iterator[Contestant]:
    """Backpropagation with checkpoints (the better of two sizes) and its backward solve, compiled by JAX.

    Args:
        problem: the solve.
        per_sample: map the solve over the batch, so that each sample chooses its own steps.
    """
    form = form_of(problem.field)
    if form is None or importlib.util.find_spec("diffrax") is None:
        return
    import diffrax_peer

    yield from diffrax_peer.steps(problem, form, per_sample)
