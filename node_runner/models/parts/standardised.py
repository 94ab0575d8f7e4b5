"""The units in which models work: standard deviations about the mean of the training data."""

from __future__ import annotations

from torch import Tensor, nn


class Standardised(nn.Module):
    """A module that knows the units of the data, so that one tolerance and one initialisation serve data of any scale.

    Args:
        mean, std: (D,) or () of the training data.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.clone())
        self.register_buffer("std", std.clone())

    def standardise(self, y: Tensor) -> Tensor:
        """Values (..., D) in standard deviations about the mean."""
        return (y - self.mean) / self.std

    def restore(self, z: Tensor) -> Tensor:
        """Values (..., D) in the data's units again."""
        return z * self.std + self.mean
