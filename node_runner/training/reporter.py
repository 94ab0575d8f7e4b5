"""Who hears of a training while it goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Reporter(Protocol):
    """Hears of a run's progress."""

    def begin(self, step: int, total: int) -> None:
        """Training starts (or goes on) at `step` of `total`."""
        ...

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One line of metrics, by their public names."""
        ...

    def step(self, step: int) -> None:
        """One optimiser step is complete. Must be cheap."""
        ...
