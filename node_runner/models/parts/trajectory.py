"""A neural ODE that predicts trajectories."""

from __future__ import annotations

from torch import Tensor

from node_runner.learning import ModelOutput
from node_runner.models.parts.block import ODEBlock
from node_runner.models.parts.standardised import Standardised
from node_runner.views import DataSpec, View


class TrajectoryModel(Standardised):
    """Solves from the first observed state, in standardised coordinates.

    The field sees z = (y - mean) / std, with the training data's mean and standard deviation, so
    that one tolerance and one initialisation serve states of any scale. Predictions are in the
    data's units.
    """

    view = View.trajectories

    def __init__(self, spec: DataSpec, block: ODEBlock) -> None:
        super().__init__(spec.mean, spec.std)
        self.block = block
        self.dim = spec.shape[0]

    def forward(self, y0: Tensor, ts: Tensor, t0: Tensor | None = None) -> ModelOutput:
        """y0: (B, D), ts: (T,) from the start, t0: (B,) or None -> states (T, B, D)."""
        flow = self.block(self.standardise(y0), ts, t0)
        # A slice of everything would cost a copy of its gradient.
        ys = flow.ys if flow.ys.shape[-1] == self.dim else flow.ys[..., : self.dim]
        return ModelOutput(self.restore(ys), [flow.stats], flow.penalties)

    def vector_field(self, t: Tensor, y: Tensor) -> Tensor:
        """dy/dt in the data's units at t () for y (B, D) -> (B, D)."""
        return self.block.vector_field(t, self.standardise(y)) * self.std
