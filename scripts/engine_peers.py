"""The same training step by other libraries: torchdiffeq, torchode, and diffrax on JAX.

torchode and diffrax are optional: `pip install torchode diffrax`.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from engine_problems import Problem
from torch import Tensor, nn
from torchdiffeq import odeint, odeint_adjoint

from node_runner.forms import Integral, form_of


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
    import diffrax
    import jax
    import jax.numpy as jnp
    import numpy as np

    def flat(tree: Any) -> Tensor:
        return torch.tensor(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])).double()

    to_jax = lambda tensor: jnp.asarray(tensor.detach().numpy())  # noqa: E731
    parameters = [(to_jax(layer.weight), to_jax(layer.bias)) for layer in form.layers]
    noise = None if form.noise is None else to_jax(form.noise)

    def network(t: Any, y: Any, layers: Any) -> Any:
        h = jnp.concatenate([y, jnp.broadcast_to(t, (len(y), 1)).astype(y.dtype)], 1) if form.time_input else y
        for weight, bias in layers[:-1]:
            h = jnp.tanh(h @ weight.T + bias)
        return h @ layers[-1][0].T + layers[-1][1]

    def dynamics(t: Any, y: Any, layers: Any) -> Any:
        if Integral.divergence not in form.integrals:
            return network(t, y, layers)
        z = y[:, :-1]
        dz, pull = jax.vjp(lambda z: network(t, z, layers), z)
        if noise is not None:
            divergence = (pull(noise)[0] * noise).sum(1, keepdims=True)
        else:
            rows = [pull(jnp.zeros_like(dz).at[:, i].set(1.0))[0][:, i : i + 1] for i in range(dz.shape[1])]
            divergence = sum(rows)
        return jnp.concatenate([dz, divergence], 1)

    y0, ts, target = to_jax(problem.y0), to_jax(problem.ts), to_jax(problem.target)
    if problem.method.adaptive:
        solver, controller = diffrax.Dopri5(), diffrax.PIDController(rtol=problem.rtol, atol=problem.atol)
        adjoints = {"diffrax, 4096 steps at most": (diffrax.RecursiveCheckpointAdjoint(), 4096),
                    "diffrax, 256 steps at most": (diffrax.RecursiveCheckpointAdjoint(), 256),
                    "diffrax, backward solve": (diffrax.BacksolveAdjoint(), 4096)}  # fmt: skip
    else:
        a = problem.method.tableau.a
        b = np.array(problem.method.tableau.b)

        class Tableau(diffrax.AbstractERK):
            """The same coefficients: diffrax has no rk4 of its own."""

            tableau = diffrax.ButcherTableau(
                c=np.array(problem.method.tableau.c[1:]), b_sol=b, b_error=b - np.eye(len(b))[0],
                a_lower=tuple(np.array(row[:i]) for i, row in enumerate(a) if i > 0),
            )  # fmt: skip
            interpolation_cls = diffrax.ThirdOrderHermitePolynomialInterpolation.from_k

            def order(self, terms: Any) -> int:
                return problem.method.order or 1

        solver, controller = Tableau(), diffrax.StepTo(ts=ts)
        adjoints = {"diffrax": (diffrax.RecursiveCheckpointAdjoint(), 128)}
    for name, (adjoint, most) in adjoints.items():

        def solve(y0: Any, layers: Any, adjoint: Any = adjoint, most: int = most) -> Any:
            solution = diffrax.diffeqsolve(
                diffrax.ODETerm(dynamics), solver, ts[0], ts[-1], None, y0, layers, saveat=diffrax.SaveAt(ts=ts),
                stepsize_controller=controller, adjoint=adjoint, max_steps=most,
            )  # fmt: skip
            return solution.ys, solution.stats

        def loss(layers: Any, solve: Any = solve) -> Any:
            if per_sample:
                ys, stats = jax.vmap(solve, in_axes=(0, None), out_axes=(1, 0))(y0[:, None], layers)
                ys = ys[:, :, 0]
            else:
                ys, stats = solve(y0, layers)
            return jnp.mean((ys - target) ** 2), stats

        def update(layers: Any, first: Any, second: Any, loss: Any = loss) -> Any:
            (_, stats), gradient = jax.value_and_grad(loss, has_aux=True)(layers)
            first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradient)
            second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, gradient)
            layers = jax.tree.map(lambda p, m, v: p - 0.0 * m / (jnp.sqrt(v) + 1e-8), layers, first, second)
            return layers, first, second, gradient, stats

        compiled = jax.jit(update)
        zeros = jax.tree.map(jnp.zeros_like, parameters)
        state: list[Any] = [parameters, zeros, zeros]
        latest: dict[str, Any] = {}

        def step(compiled: Any = compiled, state: list[Any] = state, latest: dict[str, Any] = latest) -> None:
            *state[:], latest["gradient"], latest["stats"] = jax.block_until_ready(compiled(*state))

        began = time.perf_counter()
        try:
            step()
        except Exception as error:  # a library that fails is a result, and the others go on
            print(f"  {name} failed: {str(error).splitlines()[0][:120]}")
            continue
        yield Contestant(
            name,
            step,
            lambda latest=latest: torch.tensor(
                np.concatenate([np.ravel(x) for x in jax.tree.leaves(latest["gradient"])])
            ).double(),
            lambda latest=latest: {
                "accepted": int(latest["stats"]["num_accepted_steps"].max()),
                "rejected": int(latest["stats"]["num_rejected_steps"].max()),
            },
            time.perf_counter() - began,
        )
