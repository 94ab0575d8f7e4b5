"""The training step by diffrax, compiled by JAX. Imported where both are installed only."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import torch
from engine_peers import Contestant
from engine_problems import Problem
from torch import Tensor

from node_runner.forms import FieldForm, Integral
from node_runner.types import Method


Array = jax.Array
Layers = list[tuple[Array, Array]]


class Loop(NamedTuple):
    """diffrax's solver and step control, and by what adjoint and within how many steps it differentiates a solve."""

    solver: Any
    controller: Any
    adjoint: Any
    most: int


def steps(problem: Problem, form: FieldForm, per_sample: bool) -> Iterator[Contestant]:
    """A contestant for each way to differentiate; see `engine_peers.diffrax_steps`."""
    layers = [(array(layer.weight), array(layer.bias)) for layer in form.layers]
    target = array(problem.target)
    for name, loop in loops(problem).items():
        solve = functools.partial(solution, problem, field(form), loop, per_sample)

        def loss(layers: Layers, solve: Callable[[Layers], Any] = solve) -> tuple[Array, dict[str, Array]]:
            ys, stats = solve(layers)
            return jnp.mean((ys - target) ** 2), stats

        try:
            yield contestant(name, loss, layers)
        except Exception as error:  # a library that fails is a result, and the others go on
            print(f"  {name} failed: {str(error).splitlines()[0][:120]}")


def array(tensor: Tensor) -> Array:
    """The same numbers for JAX."""
    return jnp.asarray(tensor.detach().numpy())


def field(form: FieldForm) -> Callable[[Any, Array, Layers], Array]:
    """(t, y, layers) -> dy/dt of a tanh network, with the divergence beside it where that is integrated."""

    def network(t: Any, y: Array, layers: Layers) -> Array:
        h = jnp.concatenate([y, jnp.broadcast_to(t, (len(y), 1)).astype(y.dtype)], 1) if form.time_input else y
        for weight, bias in layers[:-1]:
            h = jnp.tanh(h @ weight.T + bias)
        return h @ layers[-1][0].T + layers[-1][1]

    if Integral.divergence not in form.integrals:
        return network
    noise = None if form.noise is None else array(form.noise)

    def widened(t: Any, y: Array, layers: Layers) -> Array:
        z = y[:, :-1]
        dz, pull = jax.vjp(lambda z: network(t, z, layers), z)
        if noise is not None:
            divergence = (pull(noise)[0] * noise).sum(1, keepdims=True)
        else:
            rows = [pull(jnp.zeros_like(dz).at[:, i].set(1.0))[0][:, i : i + 1] for i in range(dz.shape[1])]
            divergence = sum(rows)
        return jnp.concatenate([dz, divergence], 1)

    return widened


def loops(problem: Problem) -> dict[str, Loop]:
    """Backpropagation with checkpoints, at two sizes where steps are chosen, and there the backward solve too."""
    checkpoints = diffrax.RecursiveCheckpointAdjoint()
    if not problem.method.adaptive:
        return {"diffrax": Loop(fixed_solver(problem.method), diffrax.StepTo(ts=array(problem.ts)), checkpoints, 128)}
    solver, controller = diffrax.Dopri5(), diffrax.PIDController(rtol=problem.rtol, atol=problem.atol)
    return {
        "diffrax, 4096 steps at most": Loop(solver, controller, checkpoints, 4096),
        "diffrax, 256 steps at most": Loop(solver, controller, checkpoints, 256),
        "diffrax, backward solve": Loop(solver, controller, diffrax.BacksolveAdjoint(), 4096),
    }


def fixed_solver(method: Method) -> Any:
    """A solver with the same coefficients: diffrax has no rk4 of its own."""
    theirs = method.tableau
    assert theirs is not None
    b = np.array(theirs.b)

    class Tableau(diffrax.AbstractERK):
        tableau = diffrax.ButcherTableau(
            c=np.array(theirs.c[1:]), b_sol=b, b_error=b - np.eye(len(b))[0],
            a_lower=tuple(np.array(row[:i]) for i, row in enumerate(theirs.a) if i > 0),
        )  # fmt: skip
        interpolation_cls = diffrax.ThirdOrderHermitePolynomialInterpolation.from_k

        def order(self, terms: Any) -> int:
            return method.order or 1

    return Tableau()


def solution(
    problem: Problem, dynamics: Callable[..., Array], loop: Loop, per_sample: bool, layers: Layers
) -> tuple[Array, dict[str, Array]]:
    """States (T, B, D) and statistics."""
    y0, ts = array(problem.y0), array(problem.ts)

    def solve(y0: Array, layers: Layers) -> tuple[Array, dict[str, Array]]:
        found = diffrax.diffeqsolve(
            diffrax.ODETerm(dynamics), loop.solver, ts[0], ts[-1], None, y0, layers, saveat=diffrax.SaveAt(ts=ts),
            stepsize_controller=loop.controller, adjoint=loop.adjoint, max_steps=loop.most,
        )  # fmt: skip
        return found.ys, found.stats

    if not per_sample:
        return solve(y0, layers)
    ys, stats = jax.vmap(solve, in_axes=(0, None), out_axes=(1, 0))(y0[:, None], layers)
    return ys[:, :, 0], stats


def contestant(name: str, loss: Callable[[Layers], tuple[Array, dict[str, Array]]], layers: Layers) -> Contestant:
    """The compiled step: loss, gradient and Adam's update, with a learning rate of 0."""

    @jax.jit
    def update(layers: Layers, first: Layers, second: Layers) -> tuple[Any, ...]:
        (_, stats), gradient = jax.value_and_grad(loss, has_aux=True)(layers)
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradient)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, gradient)
        layers = jax.tree.map(lambda p, m, v: p - 0.0 * m / (jnp.sqrt(v) + 1e-8), layers, first, second)
        return layers, first, second, gradient, stats

    zeros = jax.tree.map(jnp.zeros_like, layers)
    state: list[Any] = [layers, zeros, zeros]
    latest: dict[str, Any] = {}

    def step() -> None:
        *state[:], latest["gradient"], latest["stats"] = jax.block_until_ready(update(*state))

    def gradient() -> Tensor:
        return torch.tensor(np.concatenate([np.ravel(x) for x in jax.tree.leaves(latest["gradient"])])).double()

    def facts() -> dict[str, Any]:
        kinds = ("accepted", "rejected")
        return {kind: int(latest["stats"][f"num_{kind}_steps"].max()) for kind in kinds}

    began = time.perf_counter()
    step()
    return Contestant(name, step, gradient, facts, time.perf_counter() - began)
