"""Invertible maps from data to the space where a flow works, with their log-determinants."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from node_runner.models.parts.standardised import Standardised


class Standardise(Standardised):
    """z = (x - mean) / std."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x: (B, D) -> z (B, D) and log |dz/dx| (B,)."""
        log_det = -self.std.log().expand(x.shape[1]).sum()
        return self.standardise(x), log_det.expand(len(x))

    def inverse(self, z: Tensor) -> Tensor:
        """z: (B, D) -> x (B, D)."""
        return self.restore(z)


class Logit(nn.Module):
    """z = (logit(a + (1 - 2a) x / levels) - mean) / std, for dequantised pixels x in [0, levels].

    Mean and deviation are each pixel's own over the training data. On MNIST independent normal z have 2.6 bits/dim with
    a = 1e-5, and 4.8 with a = 0.05, which leaves the background in a narrow band that a flow must widen first.

    Source: Dinh, Sohl-Dickstein, Bengio, Real NVP (2017), section 4.1.

    Args:
        levels: grey levels.
        frequencies: (D, levels) share of each level in each pixel (None: mean 0 and deviation 1).
        a: keeps the ends of the scale finite.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, levels: int, frequencies: Tensor | None = None, *, a: float = 1e-5) -> None:
        super().__init__()
        self.levels = levels
        self.a = a
        mean, std = torch.zeros(()), torch.ones(())
        if frequencies is not None:
            mean, std = self._moments(frequencies.double())
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def _moments(self, frequencies: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation (D,) of the logits of pixels that are spread evenly within their levels."""
        inside = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
        x = (torch.arange(self.levels).unsqueeze(1) + inside) / self.levels
        logits = torch.logit(self.a + (1 - 2 * self.a) * x)
        mean = frequencies @ logits.mean(dim=1)
        variance = frequencies @ logits.square().mean(dim=1) - mean.square()
        return mean, variance.sqrt()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x: (B, D) -> z (B, D) and log |dz/dx| (B,)."""
        u = self.a + (1 - 2 * self.a) * x / self.levels
        z = torch.logit(u)
        scale = math.log((1 - 2 * self.a) / self.levels)
        log_det = F.softplus(-z) + F.softplus(z) + scale - self.std.log()
        return (z - self.mean) / self.std, log_det.sum(dim=1)

    def inverse(self, z: Tensor) -> Tensor:
        """z: (B, D) -> x (B, D), clipped to [0, levels]."""
        x = (torch.sigmoid(z * self.std + self.mean) - self.a) / (1 - 2 * self.a) * self.levels
        return x.clamp(0, self.levels)
