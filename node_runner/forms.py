"""A vector field in the open: what it is made of, so that an engine can write it out instead of calling it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from node_runner.settings import Activation
from node_runner.tracing import Chain, chain_of
from node_runner.types import Dynamics


class Layer(NamedTuple):
    """One layer of a network: weight (m, n) and bias (m,), and what gates it by time, if anything does.

    gate_weight (m, 1), gate_bias (m,), shift_weight (m, 1): (W x + b) * sigmoid(g t + c) + h t.
    """

    weight: Tensor
    bias: Tensor
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
    """Layers with an activation between them, and what is done around them.

    Attributes:
        layers: first to last.
        activation: between layers.
        time_input: whether the first layer's last input is the time.
        power: of each number of the state, which the first layer sees.
        start: (B,) added to the time of each sample (None: nothing).
        integrals: what is integrated beside the state, in the order of its columns.
        noise: (B, D) Hutchinson's probe of the divergence (None: it is exact).
        moved: the first rows of a state, if the network gives only the others.
    """

    layers: tuple[Layer, ...]
    activation: Activation
    time_input: bool
    power: int = 1
    start: Tensor | None = None
    integrals: tuple[Integral, ...] = ()
    noise: Tensor | None = None
    moved: Moved | None = None

    @property
    def parameters(self) -> list[Tensor]:
        """Every tensor of every layer, in order."""
        return [tensor for layer in self.layers for tensor in layer if tensor is not None]


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
    return FieldForm(layers, chain.activation, chain.time_input, chain.power)
