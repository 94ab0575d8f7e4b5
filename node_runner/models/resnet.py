"""A residual network with the neural ODE's field: what it is worth to be continuous."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from node_runner.learning import Regulariser, StepRegulariser
from node_runner.models import MODELS
from node_runner.models.parts.block import MakeField
from node_runner.models.parts.block_model import ClassifierSettings, block_model
from node_runner.models.parts.declarations import SOLVE, learns_from, makes_no_use_of
from node_runner.models.parts.residual import Layers
from node_runner.models.parts.unregularised import refuse_regularisers
from node_runner.settings import Depth, Encoder, Positive, Width
from node_runner.types import Integrate
from node_runner.views import DataSpec, View


@MODELS.register("resnet", "residual network of the field and size of model=node, without a solve: its discrete twin")
@learns_from(View.trajectories, View.labelled)
@makes_no_use_of(*SOLVE)
def resnet(
    spec: DataSpec,
    make_field: MakeField,
    solve: Integrate,
    regularisers: Mapping[str, Regulariser],
    /,
    *,
    layers: Depth = 6,
    layers_per_output: Depth = 1,
    encoder: Encoder = Encoder.auto,
    encoder_width: Width = 128,
    state: Width = 64,
    end_time: Positive = 1.0,
) -> nn.Module:
    """y_{k+1} = y_k + h f(y_k) for trajectories or for classification, all layers with the same weights.

    Solver, tolerance and adjoint play no part, and the run says so. A field that is learned so is right for the steps
    that it was learned with: between other times it predicts something else.

    Args:
        spec: of the data; its view decides what is built.
        make_field: makes the field for a state shape.
        solve: not used.
        regularisers: summed along the layers.
        layers: how many a classifier has.
        layers_per_output: how many there are on trajectories from each observation time to the next.
        encoder, encoder_width, state: see `node.node`.
        end_time: of a classifier, whose h is end_time / layers.

    Raises:
        ConfigError: regularisers that look at a solver's steps.
    """
    del solve
    noting = {name: item for name, item in regularisers.items() if isinstance(item, StepRegulariser)}
    refuse_regularisers("resnet", "has no solver whose steps could be looked at", noting, "node")
    steps = Layers(layers_per_output if spec.view is View.trajectories else layers)
    return block_model(
        spec, make_field, steps, regularisers, ClassifierSettings(encoder, encoder_width, state, end_time)
    )
