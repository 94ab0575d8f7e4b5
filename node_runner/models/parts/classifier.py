"""A classifier of continuous depth: encoder, ODE block, head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from node_runner.errors import ConfigError
from node_runner.fields.conv import groups
from node_runner.learning import ModelOutput
from node_runner.models.parts.block import MakeField, ODEBlock
from node_runner.models.parts.residual import Layers
from node_runner.models.parts.standardised import Standardised
from node_runner.models.parts.steer import check_steer, steered
from node_runner.settings import Encoder
from node_runner.views import DataSpec, View


class Classifier(Standardised):
    """Logits from the state that the block reaches at `end_time`.

    Args:
        spec: of the labelled view.
        encoder: input -> initial state.
        block: the ODE block.
        head: final state -> logits.
        end_time: T of the solve over [0, T].
        steer: half the width of the interval about T from which training draws the end; see `steer`.
    """

    view = View.labelled
    times: Tensor

    def __init__(
        self,
        spec: DataSpec,
        encoder: nn.Module,
        block: ODEBlock,
        head: nn.Module,
        end_time: float,
        steer: float = 0.0,
    ) -> None:
        super().__init__(spec.mean, spec.std)
        check_steer(steer, end_time)
        self.steer = steer
        self.encoder = encoder
        self.block = block
        self.head = head
        self.register_buffer("times", spec.mean.new_tensor([0.0, end_time]))

    def forward(self, x: Tensor) -> ModelOutput:
        """x: (B, P...) -> logits (B, C)."""
        times, scalars = steered(self.times, self.steer if self.training else 0.0)
        flow = self.block(self.encoder(self.standardise(x)), times)
        return ModelOutput(self.head(flow.ys[-1]), [flow.stats], flow.penalties, scalars=scalars)

    def states(self, x: Tensor, times: int) -> Tensor:
        """x: (B, P...) -> hidden states (times, B, D...) at even depths, from the encoder's to the head's.

        Of residual layers there is a state before each and one after the last, whatever `times` says.
        """
        solve = self.block.solve
        if isinstance(solve, Layers):
            times, solve = solve.per_output + 1, Layers()
        ts = torch.linspace(0, float(self.times[-1]), times, dtype=self.times.dtype, device=self.times.device)
        y0 = self.block.widen(self.encoder(self.standardise(x)))
        return solve(self.block.field, y0, ts).ys


def choose_encoder(encoder: Encoder, spec: DataSpec, make_field: MakeField) -> Encoder:
    """What `auto` means for this data and this field.

    Raises:
        ConfigError: the encoder does not fit the data or the field.
    """
    image = len(spec.shape) == 3
    field_ndim = getattr(make_field, "state_ndim", 1)
    if encoder is Encoder.auto:
        if not image:
            return Encoder.none
        return Encoder.conv if field_ndim == 3 else Encoder.mlp
    if encoder is Encoder.conv and not image:
        raise ConfigError(f"model.encoder=conv needs images, and dataset={spec.dataset} has inputs of shape "
                          f"{spec.shape}: use model.encoder=none or mlp")  # fmt: skip
    if (encoder is Encoder.conv) != (field_ndim == 3) and encoder is not Encoder.none:
        fit = "field=conv" if encoder is Encoder.conv else "field=mlp"
        raise ConfigError(f"model.encoder={encoder.value} makes states that this field cannot take: use {fit}")
    return encoder


def make_encoder(encoder: Encoder, spec: DataSpec, width: int, state: int) -> tuple[nn.Module, tuple[int, ...]]:
    """An encoder and the shape of the state that it makes.

    mlp: P - width - state. conv: three convolutions that take 28 x 28 to 6 x 6 (Chen et al. 2018,
    as in torchdiffeq's examples/odenet_mnist.py). none: the input is the state.

    Args:
        encoder: which, not auto.
        spec: of the data.
        width: of the mlp's hidden layer.
        state: numbers of the state, or channels of it.

    Raises:
        ConfigError: images that are too small for convolutions.
    """
    if encoder is Encoder.mlp:
        layers = nn.Sequential(nn.Flatten(), nn.Linear(spec.numel, width), nn.ReLU(), nn.Linear(width, state))
        return layers, (state,)
    if encoder is Encoder.conv:
        height, row = (((size - 2) // 2) // 2 for size in spec.shape[1:])
        if height < 1 or row < 1:
            raise ConfigError(f"model.encoder=conv needs images of at least 6 x 6, got {spec.shape[1:]}")
        layers = nn.Sequential(
            nn.Conv2d(spec.shape[0], state, 3),
            nn.GroupNorm(groups(state), state),
            nn.ReLU(),
            nn.Conv2d(state, state, 4, stride=2, padding=1),
            nn.GroupNorm(groups(state), state),
            nn.ReLU(),
            nn.Conv2d(state, state, 4, stride=2, padding=1),
        )
        return layers, (state, height, row)
    return nn.Identity(), spec.shape


def make_head(shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Final state of the given shape -> logits: norm, ReLU and pooling for images, then one linear layer."""
    if len(shape) == 3:
        channels = shape[0]
        return nn.Sequential(
            nn.GroupNorm(groups(channels), channels),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(channels, num_classes),
        )
    return nn.Linear(shape[0], num_classes)
