"""A recurrent network over irregular observations: what the continuous models are held against."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from node_runner.learning import Regulariser
from node_runner.models import MODELS
from node_runner.models.parts.block import MakeField
from node_runner.models.parts.declarations import SOLVE, learns_from, makes_no_use_of
from node_runner.models.parts.recurrence import StillMemory
from node_runner.models.parts.recurrent import Recurrent
from node_runner.models.parts.unregularised import refuse_regularisers
from node_runner.settings import Share, Width
from node_runner.types import Integrate
from node_runner.views import DataSpec, View


@MODELS.register("rnn", "GRU over values, mask and time gaps of irregular series: a baseline without an ODE")
@learns_from(View.series, View.paths)
@makes_no_use_of("field", *SOLVE)
def rnn(
    spec: DataSpec,
    make_field: MakeField,
    solve: Integrate,
    regularisers: Mapping[str, Regulariser],
    /,
    *,
    hidden: Width = 32,
    cut: Share = 0.0,
) -> nn.Module:
    """A GRU that is told the time since the last observation; it uses neither field nor solve.

    Args:
        spec: of the data; its view decides whether series are continued or classified.
        make_field, solve: not used.
        regularisers: none, since there is no solve to integrate them along.
        hidden: width of the memory and of the decoder.
        cut: share of the training steps in which nothing is seen after a random time, so that it learns to read its own
            predictions.

    Raises:
        ConfigError: regularisers; a cut of paths.
    """
    del make_field, solve
    refuse_regularisers("rnn", "has no solve to integrate along", regularisers, "ode_rnn")
    return Recurrent(spec, StillMemory(spec.shape[0], hidden), hidden, cut)
