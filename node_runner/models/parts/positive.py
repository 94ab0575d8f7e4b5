"""Positive parameters of an equation, learned through their logarithms."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


class PositiveParameters(nn.ParameterDict):
    """Weights by name, each the logarithm of a parameter over `pace`: how fast that moves as weights do.

    Args:
        start: values () above 0 that the parameters start from.
        pace: a parameter is exp(pace * weight).
    """

    def __init__(self, start: Mapping[str, Tensor], pace: float) -> None:
        super().__init__({name: value.log() / pace for name, value in start.items()})
        self.pace = pace

    def positive(self) -> dict[str, Tensor]:
        """Each parameter () by name."""
        return {name: (self.pace * weight).exp() for name, weight in self.items()}
