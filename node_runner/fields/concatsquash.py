"""Layers whose gain and shift depend on time, as in FFJORD."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from node_runner.errors import ConfigError
from node_runner.fields import FIELDS
from node_runner.fields.activation import ACTIVATIONS, STEEPEST, as_column
from node_runner.fields.spectral import bounds, cap
from node_runner.forms import FieldForm, Layer, between
from node_runner.settings import Activation, Depth, Positive, Width


SMALL = 16
"""Numbers of a state up to which a narrow field does."""


class ConcatSquashLinear(nn.Module):
    """(W x + b) * sigmoid(g t + c) + h t: (B, n) -> (B, m)."""

    def __init__(self, n: int, m: int) -> None:
        super().__init__()
        self.linear = nn.Linear(n, m)
        self.gate = nn.Linear(1, m)
        self.shift = nn.Linear(1, m, bias=False)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        """t: (B, 1) or (1, 1), x: (B, n) -> (B, m)."""
        return self.linear(x) * torch.sigmoid(self.gate(t)) + self.shift(t)


@FIELDS.register("concatsquash", "layers gated and shifted by time, as in FFJORD: the usual field of a flow")
class ConcatSquash(nn.Module):
    """Layers (W y + b) * sigmoid(g t + c) + h t with an activation between them. Always time-dependent.

    Source: Grathwohl et al., FFJORD (2019), layer type "concatsquash" of the authors' code.

    Args:
        shape: (D,) of one state.
        outputs: numbers that f gives (None: D).
        width: of each hidden layer (null: 64, and 512 for states of more than 16 numbers, which a layer narrower than
            the state cannot move in all directions).
        depth: number of hidden layers.
        activation: the nonlinearity between layers (null: tanh, and silu for states of more than 16 numbers, which
            learns them in fewer steps).
        spectral_norm: largest singular value that a layer's weight may have (null: any).

    Raises:
        ConfigError: the state is not a vector.
    """

    state_ndim = 1
    time_dependent = True

    def __init__(
        self,
        shape: tuple[int, ...],
        outputs: int | None = None,
        /,
        *,
        width: Width | None = None,
        depth: Depth = 3,
        activation: Activation | None = None,
        spectral_norm: Positive | None = None,
    ) -> None:
        super().__init__()
        if len(shape) != 1:
            raise ConfigError(
                f"field=concatsquash needs a state that is a vector, got one of shape {shape}; use field=conv"
            )
        small = shape[0] <= SMALL
        width = width or (64 if small else 512)
        self.kind = activation or (Activation.tanh if small else Activation.silu)
        self.activation = ACTIVATIONS[self.kind]
        sizes = [shape[0], *[width] * depth]
        self.hidden = nn.ModuleList(ConcatSquashLinear(n, m) for n, m in pairwise(sizes))
        self.out = ConcatSquashLinear(width, shape[0] if outputs is None else outputs)
        self.spectral_norm = spectral_norm
        self.constrain()

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """t: () or (B,), y: (B, D) -> (B, D or outputs)."""
        column = t.to(y.dtype).reshape(-1, 1) if t.ndim == 0 else as_column(t, y)
        h = y
        for layer in self.hidden:
            h = self.activation(layer(column, h))
        return self.out(column, h)

    def constrain(self) -> None:
        """Bring the weights' singular values down to `spectral_norm`; gates are below 1 and stretch nothing."""
        cap([layer.linear.weight for layer in (*self.hidden, self.out)], self.spectral_norm)

    def scalars(self) -> dict[str, Tensor]:
        """The largest singular value, and the bound on |df/dy| that follows from all of them."""
        return bounds([layer.linear.weight for layer in (*self.hidden, self.out)], STEEPEST[self.kind])

    def form(self) -> FieldForm:
        """What it is made of, for engines that write it out."""
        layers = tuple(
            Layer(layer.linear.weight, layer.linear.bias, layer.gate.weight, layer.gate.bias, layer.shift.weight)
            for layer in (*self.hidden, self.out)
        )
        return FieldForm(layers, between(layers, self.kind), time_input=False)
