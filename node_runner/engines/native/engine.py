"""engine=native: a solve and its gradient in C++ written for the field's network."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from node_runner.engines import ENGINES
from node_runner.engines.compiler import LOOKED_FOR, compiler
from node_runner.engines.failures import unheard
from node_runner.engines.native.calls import KEEP, Differentiable, NativeSolve, Recipe
from node_runner.engines.native.plan import GRADIENTS, Making, Network, library, network_of
from node_runner.forms import FieldForm, Integral, form_of
from node_runner.settings import Batching
from node_runner.tracing import chain_of
from node_runner.types import DISCRETE, Dynamics, Engine, Gradient, Method, Norm, Solution, offers


WIDEST = 512
"""Beyond this a matrix library is faster than code that keeps a layer in registers and cache."""

RECIPES = 1000
"""Recipes kept at most."""

MOST_PROBES = 8
"""Directions of an exact divergence or Jacobian, carried side by side."""


@ENGINES.register("native", "C++ written for the field's network and compiled once: small and middle MLPs on the CPU")
class NativeEngine(Engine):
    """Multilayer perceptrons, plain or gated by time, alone or with the integrals of `node_runner.forms.Integral`.

    Such a network may also be the acceleration of a field of second order, and may see a power of the state.

    Values, accepted and rejected steps are torchdiffeq's. Gradients are those of the computed numbers, with step
    sizes as constants (torchdiffeq differentiates its estimate of the first step too), or of the continuous adjoint.
    The lanes of a vector are samples, or where these are few and the network is plain, the units of a layer. With
    solver.batching=per_sample each lane takes the steps of its own sample, and then the next sample.

    A solve uses torch's number of threads, each for some of the samples where these are many; results depend on it
    to rounding only.
    """

    name = "native"
    adjoints = frozenset(KEEP)

    def __init__(self) -> None:
        self._recipes: dict[Any, Recipe] = {}  # each holds its method, whose id is in the key
        self._agreed: tuple[Dynamics, FieldForm] | None = None  # to the solve that follows
        self._first: dict[Network, Network] = {}  # that was asked for, by the same network without gradient

    def unsupported(self, method: Method) -> str | None:
        """Explicit Runge-Kutta methods."""
        if method.tableau is None:
            return f"engine=native runs explicit Runge-Kutta methods, and solver={method.name} is none here"
        if compiler() is None:
            return f"engine=native needs a C++ compiler, and there is none ({LOOKED_FOR})"
        return None

    def refuses(self, method: Method, f: Dynamics, y0: Tensor, norm: Norm | None, adjoint: str) -> str | None:
        """Fields that are no network of the kind that the source is written for."""
        if offers(f, "note"):
            return unheard("native")
        form = form_of(f)
        reason = _refusal(f, form, y0, norm)
        if reason is not None or form is None:
            return f"engine=native {reason}"
        self._agreed = f, form
        return None

    def prepare(
        self, method: Method, f: Dynamics, y0: Tensor, norm: Norm | None, adjoint: str | None
    ) -> Callable[[], object]:
        """Compile the library, or find it."""
        form = form_of(f)
        assert form is not None, "refuses() says which fields are served"
        return Making(self._network(method, form, y0, norm, adjoint))

    def integrate(
        self, method: Method, f: Dynamics, y0: Tensor, ts: Tensor, *, rtol: float, atol: float, norm: Norm | None,
        gradient: Gradient = DISCRETE,
    ) -> Solution:  # fmt: skip
        """Solve; see `node_runner.types.Integrate`. Output times get no gradient."""
        agreed, self._agreed = self._agreed, None
        form = agreed[1] if agreed is not None and agreed[0] is f else form_of(f)
        assert form is not None, "refuses() says which fields are served"
        parameters = form.parameters
        tracked = torch.is_grad_enabled() and (y0.requires_grad or any(p.requires_grad for p in parameters))
        wanted = gradient if tracked else None
        recipe = self._recipe(method, rtol, atol, wanted)
        network = self._network(method, form, y0, norm, wanted.adjoint if wanted else None)
        fixed = _multiples(form.scale, form.along, y0.dtype) if network.scaled or network.along else form.moved or ()
        solve = NativeSolve(library(network), recipe, parameters, form.start, form.noise, y0, ts, fixed)
        ys: Tensor = Differentiable.apply(solve, y0, *parameters) if tracked else solve.forward()
        return Solution(ts.to(y0.dtype), ys, solve.stats)

    def _network(self, method: Method, form: FieldForm, y0: Tensor, norm: Norm | None, adjoint: str | None) -> Network:
        """What is compiled for a solve. A library with a gradient solves without it too, if it was there first."""
        network = network_of(form, y0, norm, adjoint, per_sample=method.batching is Batching.per_sample)
        plain = network._replace(gradient=GRADIENTS[None])
        first = self._first.setdefault(plain, network)
        return first if network == plain else network

    def _recipe(self, method: Method, rtol: float, atol: float, gradient: Gradient | None) -> Recipe:
        """The recipe of a method, made once; a tolerance schedule makes a new one with each tolerance."""
        key = (id(method), rtol, atol, gradient)
        recipe = self._recipes.get(key)
        if recipe is None:
            if len(self._recipes) >= RECIPES:
                self._recipes.clear()
            recipe = self._recipes[key] = Recipe(method, rtol, atol, gradient)
        return recipe


@functools.lru_cache(maxsize=256)
def _multiples(scale: float, along: float, dtype: torch.dtype) -> tuple[Tensor]:
    """The numbers that a network, and the state beside it, are multiplied by, as the library wants them."""
    return (torch.tensor([scale, along], dtype=dtype),)


def _refusal(f: Dynamics, form: FieldForm | None, y0: Tensor, norm: Norm | None) -> str | None:
    if y0.device.type != "cpu":
        return f"runs on the CPU, and the state is on {y0.device.type}"
    if y0.dtype not in (torch.float32, torch.float64):
        return f"computes in float32 and float64, and the state is {str(y0.dtype).removeprefix('torch.')}"
    if norm is not None and not isinstance(getattr(norm, "columns", None), int):
        return "measures errors by their RMS, over the first columns or all, and this solve has a norm of its own"
    if form is None:
        return _formless(f)
    if isinstance(f, nn.Module) and _hooked(f):
        return f"does not call the field, so that its hooks would not run: {_name(f)} has some"
    return _unfit(form, y0)


def _hooked(module: nn.Module) -> bool:
    """Whether it or a part of it has hooks; asked before every solve, where `modules()` takes three times as long."""
    parts = module._modules.values()
    return bool(module._forward_hooks or module._forward_pre_hooks) or any(_hooked(p) for p in parts if p is not None)


def _unfit(form: FieldForm, y0: Tensor) -> str | None:
    layers = form.layers
    dim = layers[0].weight.shape[1] - form.time_input
    sizes = [dim, *(layer.weight.shape[0] for layer in layers)]
    if y0.ndim != 2 or y0.shape[1] != dim + len(form.integrals):
        return f"needs states (B, {dim}), got {tuple(y0.shape)}"
    gives = sizes[-1] + (0 if form.moved is None else len(form.moved.scale))
    if gives != dim:
        return f"needs a field that gives a state's {dim} numbers, and this one gives {gives}"
    if any(p.dtype != y0.dtype or p.device != y0.device for p in form.parameters):
        return "needs parameters of the state's dtype, on its device"
    if max(sizes) > WIDEST:
        return f"is for layers up to {WIDEST} wide, and this field has {max(sizes)}"
    if form.activations[-1] is not None and form.integrals:
        return "integrates beside networks that end in a linear layer, and this one ends in an activation"
    if (form.scale != 1.0 or form.along) and (form.moved is not None or form.integrals):
        return (
            "has a multiple of a network, or of the state beside it, alone: not with integrals, nor as an acceleration"
        )
    if form.moved is not None and form.integrals:
        return "integrates beside a network alone, and here velocities move positions"
    exact = {Integral.divergence, Integral.jacobian} & set(form.integrals)
    if form.power > 1 and exact:
        return "has divergences and Jacobians of networks of the state itself, and this one sees a power of it"
    if form.noise is None and exact and dim > MOST_PROBES:
        return (
            f"has the exact trace up to {MOST_PROBES} dimensions, and this state has {dim}: use model.trace=hutchinson"
        )
    if form.noise is not None and Integral.jacobian in form.integrals:
        return "has the Jacobian's norm beside the exact divergence only: use model.trace=exact"
    if form.start is not None and layers[0].gate_weight is not None:
        return "has gates for one time a batch, and these samples start at times of their own"
    if form.noise is not None and form.noise.shape != (len(y0), dim):
        return "needs a probe for each sample"
    return None


def _formless(f: Dynamics) -> str:
    """Why a field without a form cannot be written out."""
    inner, integrands = getattr(f, "field", None), getattr(f, "integrands", ())
    if integrands and inner is not None and form_of(inner) is not None:
        known = ", ".join(integral.value for integral in Integral)
        return f"integrates {known} (the last exact, on vectors) beside the state, and this solve has other integrals"
    return f"is written for multilayer perceptrons, and {_name(f)} is none{_because(f)}"


def _because(f: Dynamics) -> str:
    """What tells a user's own module from a perceptron; fields of this package are known by their names."""
    if not isinstance(f, nn.Module) or type(f).__module__.startswith("node_runner."):
        return ""
    chain = chain_of(f)
    return f": {chain}" if isinstance(chain, str) else ""


def _name(f: Dynamics) -> str:
    """The innermost field's name, and where that would be served, that of the wrapper of a model that is not."""
    inner = getattr(f, "field", None)
    if isinstance(inner, nn.Module):
        return _name(inner) if form_of(inner) is None else f"{_name(inner)} in {type(f).__name__}"
    return type(f).__name__ if isinstance(f, nn.Module) else getattr(f, "__name__", type(f).__name__)
