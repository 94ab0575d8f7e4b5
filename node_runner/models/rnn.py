"""A recurrent network over irregular observations: what the continuous models are held against."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from node_runner.learning import Regulariser
from node_runner.models import MODELS
from node_runner.models.block import MakeField
from node_runner.models.recurrence import StillMemory
from node_runner.models.recurrent import Recurrent
from node_runner.models.views import learns_from
from node_runner.settings import Count
from node_runner.types import Integrate
from node_runner.views import DataSpec, View


@MODELS.register("rnn", "GRU over values, mask and time gaps of irregular series: a baseline without an ODE")
@learns_from(View.series, View.paths)
def rnn(
    spec: DataSpec,
    make_field: MakeField,
    solve: Integrate,
    regularisers: Mapping[str, Regulariser],
    /,
    *,
    hidden: Count = 32,
) -> nn.Module:
    """A GRU that is told the time since the last observation; it uses neither field nor solve.

    Args:
        spec: of the data; its view decides whether series are continued or classified.
        make_field, solve, regularisers: not used.
        hidden: width of the memory and of the decoder.
    """
    del make_field, solve, regularisers
    return Recurrent(spec, StillMemory(spec.shape[0], hidden), hidden)
