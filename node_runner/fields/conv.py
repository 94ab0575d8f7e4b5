"""The convolutional field of the ODE-Net."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from node_runner.errors import ConfigError
from node_runner.fields import FIELDS
from node_runner.fields.activation import ACTIVATIONS
from node_runner.fields.spectral import bounds, cap
from node_runner.settings import Activation, Positive


class TimeConv(nn.Module):
    """3 x 3 convolution over (time, channels...): (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels + 1, channels, 3, padding=1)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """t: () or (B,)."""
        plane = t.to(y.dtype).reshape(-1, 1, 1, 1).expand(len(y), 1, *y.shape[2:])
        return self.conv(torch.cat((plane, y), dim=1))


@FIELDS.register("conv", "two 3x3 convolutions with GroupNorm and a time channel, as in the ODE-Net")
class Conv(nn.Module):
    """norm, s, conv, norm, s, conv, norm. Always time-dependent.

    Source: Chen et al., Neural Ordinary Differential Equations (2018), section 3, as in
    torchdiffeq's examples/odenet_mnist.py, whose activation is ReLU.

    Args:
        shape: (C, H, W) of one state.
        activation: the nonlinearity s; smooth ones let an adaptive solver take longer steps.
        spectral_norm: largest singular value that a layer's weight may have (null: any).

    Raises:
        ConfigError: the state is not an image.
    """

    state_ndim = 3
    time_dependent = True

    def __init__(
        self,
        shape: tuple[int, ...],
        /,
        *,
        activation: Activation = Activation.relu,
        spectral_norm: Positive | None = None,
    ) -> None:
        super().__init__()
        if len(shape) != 3:
            raise ConfigError(f"field=conv needs a state that is an image, got one of shape {shape}; use field=mlp")
        channels = shape[0]
        self.activation = ACTIVATIONS[activation]
        self.norms = nn.ModuleList(nn.GroupNorm(groups(channels), channels) for _ in range(3))
        self.convs = nn.ModuleList(TimeConv(channels) for _ in range(2))
        self.spectral_norm = spectral_norm
        self.constrain()

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """t: () or (B,), y: (B, C, H, W) -> the same shape."""
        h = self.convs[0](t, self.activation(self.norms[0](y)))
        h = self.convs[1](t, self.activation(self.norms[1](h)))
        return self.norms[2](h)

    def constrain(self) -> None:
        """Bring the singular values of the kernels, as matrices (C, 9 (C + 1)), down to `spectral_norm`."""
        cap(self._kernels(), self.spectral_norm)

    def scalars(self) -> dict[str, Tensor]:
        """The largest singular value of a kernel. Through the norms between them no bound on |df/dy| follows."""
        return {"singular_value": bounds(self._kernels(), 1.0)["singular_value"]}

    def _kernels(self) -> list[Tensor]:
        return [module.weight for module in self.convs.modules() if isinstance(module, nn.Conv2d)]


def groups(channels: int) -> int:
    """How many groups a GroupNorm has: the largest divisor of `channels` up to 32."""
    return max(n for n in range(1, min(32, channels) + 1) if channels % n == 0)
