"""A block as a whole model: of trajectories, or between the encoder and the head of a classifier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import nn

from node_runner.learning import Regulariser
from node_runner.models.parts.block import MakeField, ODEBlock
from node_runner.models.parts.classifier import Classifier, choose_encoder, make_encoder, make_head
from node_runner.models.parts.trajectory import TrajectoryModel
from node_runner.settings import Encoder
from node_runner.types import Integrate
from node_runner.views import DataSpec, View


class ClassifierSettings(NamedTuple):
    """The settings of a classifier, which mean nothing for trajectories; see `node.node`."""

    encoder: Encoder
    encoder_width: int
    state: int
    end_time: float
    steer: float = 0.0


def block_model(
    spec: DataSpec,
    make_field: MakeField,
    solve: Integrate,
    regularisers: Mapping[str, Regulariser],
    settings: ClassifierSettings,
    augment: int = 0,
) -> nn.Module:
    """The model for the view of `spec`; the block's state has `augment` zeros more."""
    if spec.view is View.trajectories:
        return TrajectoryModel(spec, ODEBlock(make_field, solve, regularisers, spec.shape, augment))
    encoder = choose_encoder(settings.encoder, spec, make_field)
    layers, shape = make_encoder(encoder, spec, settings.encoder_width, settings.state)
    block = ODEBlock(make_field, solve, regularisers, shape, augment)
    head = make_head(block.state_shape, spec.num_classes)
    return Classifier(spec, layers, block, head, settings.end_time, settings.steer)
