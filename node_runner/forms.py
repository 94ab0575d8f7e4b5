"""A vector field in the open: what it is made of, so that an engine can write it out instead of calling it."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from node_runner.settings import Activation
from node_runner.tracing import SLOPE, Chain, chain_of
from node_runner.types import Dynamics


class Layer(NamedTuple):
    """One layer of a network: weight (m, n) and bias (m,) or None, and what gates it by time, if anything does.

    gate_weight (m, 1), gate_bias (m,), shift_weight (m, 1): (W x + b) * sigmoid(g t + c) + h t.
    """

    weight: Tensor
    bias: Tensor | None
    gate_weight: Tensor | None = None
    gate_bias: Tensor | None = None
    shift_weight: Tensor | None = None


class Moved(NamedTuple):
    """The rows of a state that the network does not move, but its last rows: those of positions, moved by velocities.

    The first P of D rows, dy_i/dt = scale_i y_(D - P + i) + shift_i; scale, shift: (P,), which are no parameters.
    """

    scale: Tensor
    shift: Tensor


class Integral(enum.Enum):
    """What engines that write a field out can integrate beside its state.

    divergence: the trace of df/dy. kinetic: |f|^2 / D. jacobian: |df/dy|_F^2 / D, exact.
    """

    divergence = "divergence"
    kinetic = "kinetic"
    jacobian = "jacobian"


@dataclass(frozen=True)
class FieldForm:
    """Layers with activations after them, and what is done around them.

    Attributes:
        layers: first to last.
        activations: after each layer, the last included (None: nothing is done).
        time_input: whether the first layer has one more input, the time, after the state.
        time_first: whether that input is before the state instead.
        slope: of the leaky activations below 0.
        power: of each number of the state, which the first layer sees.
        scale: of what the layers give. along: how much of the state is added to that: f = scale network + along y.
        start: (B,) added to the time of each sample (None: nothing).
        integrals: what is integrated beside the state, in the order of its columns.
        noise: (B, D) Hutchinson's probe of the divergence (None: it is exact).
        moved: the first rows of a state, if the network gives only the others.
    """

    layers: tuple[Layer, ...]
    activations: tuple[Activation | None, ...]
    time_input: bool
    time_first: bool = False
    slope: float = SLOPE
    power: int = 1
    scale: float = 1.0
    along: float = 0.0
    start: Tensor | None = None
    integrals: tuple[Integral, ...] = ()
    noise: Tensor | None = None
    moved: Moved | None = None

    @property
    def parameters(self) -> list[Tensor]:
        """Every tensor of every layer, in order."""
        return [tensor for layer in self.layers for tensor in layer if tensor is not None]


def between(layers: Sequence[Layer], activation: Activation) -> tuple[Activation | None, ...]:
    """The activations of layers that have one between them and none after the last."""
    return (*[activation] * (len(layers) - 1), None)


def form_of(field: Dynamics) -> FieldForm | None:
    """What a field is made of: what its method `form` says, or what is seen in a module that has none."""
    form = getattr(field, "form", None)
    if callable(form):
        found = form()
        return found if isinstance(found, FieldForm) else None
    chain = chain_of(field) if isinstance(field, nn.Module) else ""
    return None if isinstance(chain, str) else form_of_chain(chain)


def form_of_chain(chain: Chain) -> FieldForm:
    """The form of a module that was recognised."""
    layers = tuple(Layer(linear.weight, linear.bias) for linear in chain.linears)
    return FieldForm(
        layers, chain.activations, chain.time_input, time_first=chain.time_first, slope=chain.slope, power=chain.power,
        scale=chain.scale, along=chain.along,
    )  # fmt: skip
