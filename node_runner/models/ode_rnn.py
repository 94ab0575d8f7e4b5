"""The ODE-RNN."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from node_runner.learning import Regulariser
from node_runner.models import MODELS
from node_runner.models.block import MakeField, ODEBlock
from node_runner.models.recurrence import MovingMemory
from node_runner.models.recurrent import Recurrent
from node_runner.models.views import learns_from
from node_runner.settings import Count
from node_runner.types import Integrate
from node_runner.views import DataSpec, View


@MODELS.register("ode_rnn", "recurrent network whose memory follows an ODE between irregular observations")
@learns_from(View.series, View.paths)
def ode_rnn(
    spec: DataSpec,
    make_field: MakeField,
    solve: Integrate,
    regularisers: Mapping[str, Regulariser],
    /,
    *,
    hidden: Count = 32,
) -> nn.Module:
    """An ODE between observations, a GRU at each.

    Source: Rubanova, Chen, Duvenaud, Latent ODEs for Irregularly-Sampled Time Series (2019).

    Args:
        spec: of the data; its view decides whether series are continued or classified.
        make_field: makes the field of the memory.
        solve: the differentiable solve, up to each time at which any series of the batch is observed.
        regularisers: integrated along all solves.
        hidden: width of the memory and of the decoder.
    """
    block = ODEBlock(make_field, solve, regularisers, (hidden,))
    return Recurrent(spec, MovingMemory(spec.shape[0], hidden, block), hidden)
