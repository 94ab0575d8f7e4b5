"""What a logger is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from matplotlib.figure import Figure


class Logger(Protocol):
    """A place that metrics and figures are sent to. Built with the run folder's path and the step it starts at."""

    def begin(self, config: Mapping[str, Any]) -> None:
        """The run starts or goes on, with this resolved config. Called once, first."""
        ...

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One line of metrics, by their public names."""
        ...

    def figure(self, name: str, figure: Figure, step: int) -> None:
        """A figure of the run."""
        ...

    def text(self, name: str, text: str) -> None:
        """Markdown."""
        ...

    def finish(self, config: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """The run is over, well or not: the resolved config and what stands in result.json."""
        ...

    def close(self) -> None:
        """Write out what is held back."""
        ...
