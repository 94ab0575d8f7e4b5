"""Conditional flow matching: a continuous normalising flow that is trained without a solve."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from node_runner.errors import ConfigError
from node_runner.learning import ModelOutput, Regulariser
from node_runner.models import MODELS
from node_runner.models.cnf import CNF
from node_runner.models.parts.block import MakeField
from node_runner.models.parts.declarations import learns_from, makes_no_use_of
from node_runner.models.parts.lines import line_error
from node_runner.models.parts.unregularised import refuse_regularisers
from node_runner.settings import Noise, Pairing, Pixels, Positive, Trace
from node_runner.types import Integrate
from node_runner.views import DataSpec, View


@MODELS.register("flow_matching", "conditional flow matching: the density of a cnf, trained without a solve")
@learns_from(View.points)
@makes_no_use_of("adjoint")
class FlowMatching(CNF):
    """The flow of `cnf`, whose field learns the velocity of straight lines between data and base.

    A point x of the data at t = 0 is paired with e ~ N(0, I) at t = T; on the line between them
    z(t) = x + (t / T) (e - x), and training minimises |f(t, z(t)) - (e - x) / T|^2 / D over t, uniform
    in [0, T]. Its minimum carries the data to the base as a density. Validation, test and samples solve,
    exactly as those of `cnf`. A field that does not depend on time would learn the mean over time.

    Source: Lipman et al., Flow Matching for Generative Modeling (2023), theorem 2, with t from data to
    base; optimal pairing: Tong et al., Improving and generalizing flow-based generative models with
    minibatch optimal transport (2023), section 3.2.3; lines of zero width as in their I-CFM with sigma 0.

    Args:
        spec, make_field, solve, trace, noise, end_time, pixels: see `cnf.CNF`.
        regularisers: none, since training has no solve along which to integrate.
        pairing: how points of a batch are joined with noise: optimal makes their lines as short as can be.

    Raises:
        ConfigError: there are regularisers, or the field does not depend on time.
    """

    def __init__(
        self,
        spec: DataSpec,
        make_field: MakeField,
        solve: Integrate,
        regularisers: Mapping[str, Regulariser],
        /,
        *,
        pairing: Pairing = Pairing.independent,
        trace: Trace = Trace.auto,
        noise: Noise = Noise.rademacher,
        end_time: Positive = 1.0,
        pixels: Pixels = Pixels.gaussianised,
    ) -> None:
        refuse_regularisers("flow_matching", "trains without a solve to integrate along", regularisers, "cnf")
        super().__init__(
            spec, make_field, solve, regularisers, trace=trace, noise=noise, end_time=end_time, pixels=pixels
        )
        if not getattr(self.field, "time_dependent", True):
            raise ConfigError("model=flow_matching learns a velocity that depends on time, and this field does not: "
                              "use field=concatsquash, or field.time_dependent=true")  # fmt: skip
        self.pairing = pairing

    def forward(self, x: Tensor) -> ModelOutput:
        """x: (B, D) -> log-densities (B,) in evaluation; in training the objective, and NaN for the densities."""
        if not self.training:
            return self.density(x)
        return ModelOutput(x.new_full((len(x),), math.nan), [], {}, objective=self.matching_loss(x))

    def matching_loss(self, x: Tensor) -> Tensor:
        """Mean squared error () of the velocity at one time for each point of x (B, D)."""
        data, _ = self.scaling(x)
        base = torch.randn_like(data)
        if self.pairing is Pairing.optimal:
            base = optimally_paired(data, base)
        return line_error(self.field, self.shape, data, base, self.times[-1])


def optimally_paired(data: Tensor, base: Tensor) -> Tensor:
    """`base` (B, D) in the order that makes the sum of |base - data|^2 least. Solved on the CPU, O(B^3)."""
    cost = torch.cdist(data, base).square()
    _, order = linear_sum_assignment(cost.detach().cpu().numpy())
    return base[torch.as_tensor(order, device=base.device)]
