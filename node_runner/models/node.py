"""The plain neural ODE."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from node_runner.learning import Regulariser
from node_runner.models import MODELS
from node_runner.models.parts.block import MakeField
from node_runner.models.parts.block_model import ClassifierSettings, block_model
from node_runner.models.parts.declarations import learns_from
from node_runner.settings import Encoder, NonNegative, Positive, Width
from node_runner.types import Integrate
from node_runner.views import DataSpec, View


@MODELS.register("node", "neural ODE: trajectories from their first state, or classes through an ODE block")
@learns_from(View.trajectories, View.labelled)
def node(
    spec: DataSpec,
    make_field: MakeField,
    solve: Integrate,
    regularisers: Mapping[str, Regulariser],
    /,
    *,
    encoder: Encoder = Encoder.auto,
    encoder_width: Width = 128,
    state: Width = 64,
    end_time: Positive = 1.0,
    steer: NonNegative = 0.0,
) -> nn.Module:
    """A neural ODE for trajectories or for classification.

    Source: Chen, Rubanova, Bettencourt, Duvenaud, Neural Ordinary Differential Equations (2018).

    Args:
        spec: of the data; its view decides what is built.
        make_field: makes the field for a state shape.
        solve: the differentiable solve.
        regularisers: integrated along the solve.
        encoder: before the ODE block of a classifier (trajectories have none).
        encoder_width: hidden width of the mlp encoder.
        state: width of the state after an mlp encoder, channels after a conv encoder.
        end_time: T of a classifier's solve over [0, T].
        steer: half the width of the interval about T from which a classifier in training draws the end of each
            solve (Ghosh et al., STEER, 2020). 0: T itself.
    """
    settings = ClassifierSettings(encoder, encoder_width, state, end_time, steer)
    return block_model(spec, make_field, solve, regularisers, settings)
