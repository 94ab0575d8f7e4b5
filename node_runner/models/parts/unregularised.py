"""Models along which no regulariser can be integrated: the run is refused, in one way for all of them."""

from __future__ import annotations

from collections.abc import Mapping

from node_runner.errors import ConfigError
from node_runner.learning import Regulariser


def refuse_regularisers(model: str, why: str, regularisers: Mapping[str, Regulariser], instead: str = "") -> None:
    """See that there are none.

    Args:
        model: its name.
        why: "has no ...".
        regularisers: of the run.
        instead: a model that does have what these need.

    Raises:
        ConfigError: there are some.
    """
    if regularisers:
        remedy = f"regulariser=[] or model={instead}" if instead else "regulariser=[]"
        raise ConfigError(f"model={model} {why}, got regulariser={', '.join(regularisers)}: use {remedy}")
