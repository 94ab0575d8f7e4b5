"""The ODE-RNN."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from node_runner.learning import Regulariser
from node_runner.models import MODELS
from node_runner.models.parts.block import MakeField, ODEBlock
from node_runner.models.parts.declarations import learns_from
from node_runner.models.parts.recurrence import MovingMemory
from node_runner.models.parts.recurrent import Recurrent
from node_runner.settings import Share, Width
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
    hidden: Width = 32,
    cut: Share = 0.0,
) -> nn.Module:
    """An ODE between observations, a GRU at each.

    Source: Rubanova, Chen, Duvenaud, Latent ODEs for Irregularly-Sampled Time Series (2019).

    Args:
        spec: of the data; its view decides whether series are continued or classified.
        make_field: makes the field of the memory.
        solve: the differentiable solve, up to each time at which any series of the batch is observed, or of all series
            from one to the next where each has times of its own.
        regularisers: integrated along all solves.
        hidden: width of the memory and of the decoder.
        cut: share of the training steps in which nothing is seen after a random time, so that the field learns to go
            on alone; without, it is only taught the gaps between observations.

    Raises:
        ConfigError: a cut of paths.
    """
    block = ODEBlock(make_field, solve, regularisers, (hidden,))
    return Recurrent(spec, MovingMemory(spec.shape[0], hidden, block), hidden, cut)
