"""Invertible maps from data to the space where a flow works, with their log-determinants."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Standardise(nn.Module):
    """z = (x - mean) / std."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.clone())
        self.register_buffer("std", std.clone())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x: (B, D) -> z (B, D) and log |dz/dx| (B,)."""
        log_det = -self.std.log().expand(x.shape[1]).sum()
        return (x - self.mean) / self.std, log_det.expand(len(x))

    def inverse(self, z: Tensor) -> Tensor:
        """z: (B, D) -> x (B, D)."""
        return z * self.std + self.mean


class Logit(nn.Module):
    """z = logit(a + (1 - 2a) x / levels), for dequantised pixels x in [0, levels].

    Source: Dinh, Sohl-Dickstein, Bengio, Real NVP (2017), section 4.1, with a = 0.05.
    """

    def __init__(self, levels: int, a: float = 0.05) -> None:
        super().__init__()
        self.levels = levels
        self.a = a

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x: (B, D) -> z (B, D) and log |dz/dx| (B,)."""
        u = self.a + (1 - 2 * self.a) * x / self.levels
        z = torch.logit(u)
        scale = math.log((1 - 2 * self.a) / self.levels)
        log_det = F.softplus(-z) + F.softplus(z) + scale
        return z, log_det.sum(dim=1)

    def inverse(self, z: Tensor) -> Tensor:
        """z: (B, D) -> x (B, D), clipped to [0, levels]."""
        x = (torch.sigmoid(z) - self.a) / (1 - 2 * self.a) * self.levels
        return x.clamp(0, self.levels)
