"""A vector field in the open: what it is made of, so that an engine can write it out instead of calling it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from node_runner.settings import Activation, Trace
from node_runner.tracing import chain_of
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


@dataclass(frozen=True)
class FieldForm:
    """Layers with an activation between them, and what is done around them.

    Attributes:
        layers: first to last.
        activation: between layers.
        time_input: whether the first layer's last input is the time.
        start: (B,) added to the time of each sample (None: nothing).
        trace: how the divergence is integrated beside the state (None: it is not).
        noise: (B, D) Hutchinson's probe, for trace=hutchinson.
    """

    layers: tuple[Layer, ...]
    activation: Activation
    time_input: bool
    start: Tensor | None = None
    trace: Trace | None = None
    noise: Tensor | None = None

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
    if isinstance(chain, str):
        return None
    layers = tuple(Layer(linear.weight, linear.bias) for linear in chain.linears)
    return FieldForm(layers, chain.activation, chain.time_input)
