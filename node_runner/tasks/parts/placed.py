"""Constants of the data, on the device where they are needed."""

from __future__ import annotations

from torch import Tensor


class Placed:
    """A tensor that follows others to their device and type, moved once: a copy in every step would wait for it."""

    def __init__(self, value: Tensor) -> None:
        self._value = value

    def like(self, x: Tensor) -> Tensor:
        """The tensor on the device and in the type of `x`."""
        if self._value.dtype != x.dtype or self._value.device != x.device:
            self._value = self._value.to(x)
        return self._value
