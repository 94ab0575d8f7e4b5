"""A multilayer perceptron."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from node_runner.errors import ConfigError
from node_runner.fields import FIELDS
from node_runner.fields.activation import ACTIVATIONS, STEEPEST, as_column
from node_runner.fields.spectral import bounds, cap
from node_runner.forms import FieldForm, Layer, between
from node_runner.settings import Activation, Depth, Positive, Power, Width


@FIELDS.register("mlp", "multilayer perceptron, for states that are vectors")
class MLP(nn.Module):
    """f(t, y) = W_n s(... s(W_1 [y^p, t] + b_1) ...) + b_n.

    Args:
        shape: (D,) of one state.
        outputs: numbers that f gives (None: D).
        width: of each hidden layer.
        depth: number of hidden layers.
        activation: the nonlinearity s between layers.
        time_dependent: append t to the input (null: where the data's own law depends on time).
        power: p, to which each number of the state is raised (3: as in torchdiffeq's demo).
        spectral_norm: largest singular value that a layer's weight may have (null: any).

    Raises:
        ConfigError: the state is not a vector, or both a power and a spectral norm are given.
    """

    state_ndim = 1

    def __init__(
        self,
        shape: tuple[int, ...],
        outputs: int | None = None,
        /,
        *,
        width: Width = 64,
        depth: Depth = 2,
        activation: Activation = Activation.silu,
        time_dependent: bool | None = None,
        power: Power = 1,
        spectral_norm: Positive | None = None,
    ) -> None:
        super().__init__()
        if len(shape) != 1:
            raise ConfigError(f"field=mlp needs a state that is a vector, got one of shape {shape}; use field=conv")
        if power > 1 and spectral_norm is not None:
            raise ConfigError("field.spectral_norm bounds a field's slope, and that of a power is unbounded: leave out "
                              f"field.spectral_norm={spectral_norm:g} or field.power={power}")  # fmt: skip
        self.time_dependent = bool(time_dependent)  # whoever knows the data has chosen already
        self.kind = activation
        self.activation = ACTIVATIONS[activation]
        sizes = [shape[0] + self.time_dependent, *[width] * depth]
        self.hidden = nn.ModuleList(nn.Linear(n, m) for n, m in pairwise(sizes))
        self.out = nn.Linear(width, shape[0] if outputs is None else outputs)
        self.power = power
        self.spectral_norm = spectral_norm
        self.constrain()

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """t: () or (B,), y: (B, D) -> (B, D or outputs)."""
        h = y if self.power == 1 else y**self.power
        h = torch.cat((h, as_column(t, y)), dim=1) if self.time_dependent else h
        for layer in self.hidden:
            h = self.activation(layer(h))
        return self.out(h)

    def constrain(self) -> None:
        """Bring the weights' singular values down to `spectral_norm`."""
        cap([layer.weight for layer in (*self.hidden, self.out)], self.spectral_norm)

    def scalars(self) -> dict[str, Tensor]:
        """The largest singular value, and the bound on |df/dy| that follows from all of them."""
        first, *others = [layer.weight for layer in (*self.hidden, self.out)]
        weights = [first[:, : self.out.out_features], *others]  # without the column of time
        return bounds(weights, STEEPEST[self.kind])

    def form(self) -> FieldForm:
        """What it is made of, for engines that write it out."""
        layers = tuple(Layer(layer.weight, layer.bias) for layer in (*self.hidden, self.out))
        return FieldForm(layers, between(layers, self.kind), time_input=self.time_dependent, power=self.power)
