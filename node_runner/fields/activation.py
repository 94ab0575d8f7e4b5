"""The functions behind `node_runner.settings.Activation`."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from node_runner.settings import Activation


ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    Activation.tanh: torch.tanh,
    Activation.softplus: F.softplus,
    Activation.silu: F.silu,
    Activation.gelu: F.gelu,
    Activation.elu: F.elu,
    Activation.sin: torch.sin,
    Activation.relu: torch.relu,
    Activation.leaky_relu: F.leaky_relu,
    Activation.sigmoid: torch.sigmoid,
}


STEEPEST: dict[Activation, float] = {
    **dict.fromkeys(Activation, 1.0),
    Activation.silu: 1.0998393194,
    Activation.gelu: 1.1289042001,
    Activation.sigmoid: 0.25,
}
"""The largest slope of each, by which it may stretch differences."""


def as_column(t: Tensor, y: Tensor) -> Tensor:
    """Time as one more feature of each sample: t () or (B,) -> (B, 1), in the dtype of y (B, D)."""
    return t.to(y.dtype).reshape(-1, 1).expand(len(y), 1)
