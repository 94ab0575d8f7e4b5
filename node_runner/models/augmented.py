"""The augmented neural ODE."""

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


@MODELS.register("augmented", "neural ODE whose state is widened with zeros, so that trajectories may pass each other")
@learns_from(View.trajectories, View.labelled)
def augmented(
    spec: DataSpec,
    make_field: MakeField,
    solve: Integrate,
    regularisers: Mapping[str, Regulariser],
    /,
    *,
    augment: Width = 3,
    encoder: Encoder = Encoder.auto,
    encoder_width: Width = 128,
    state: Width = 64,
    end_time: Positive = 1.0,
    steer: NonNegative = 0.0,
) -> nn.Module:
    """An augmented neural ODE for trajectories or for classification.

    Source: Dupont, Doucet, Teh, Augmented Neural ODEs (2019).

    Args:
        spec: of the data; its view decides what is built.
        make_field: makes the field for a state shape.
        solve: the differentiable solve.
        regularisers: integrated along the solve.
        augment: zeros appended to the state: features, or channels of images.
        encoder, encoder_width, state, end_time, steer: see `node.node`.
    """
    settings = ClassifierSettings(encoder, encoder_width, state, end_time, steer)
    return block_model(spec, make_field, solve, regularisers, settings, augment)
