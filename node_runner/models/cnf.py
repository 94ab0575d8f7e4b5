"""The continuous normalising flow."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from node_runner.learning import Integrand, ModelOutput, Regulariser
from node_runner.models import MODELS
from node_runner.models.parts.block import MakeField
from node_runner.models.parts.declarations import learns_from
from node_runner.models.parts.dynamics import Hutchinson, divergence_exact, penalised_solve
from node_runner.models.parts.lines import line_error
from node_runner.models.parts.pixels import pixel_map
from node_runner.models.parts.scaling import Standardise
from node_runner.models.parts.steer import check_steer, steered
from node_runner.settings import Noise, NonNegative, Pixels, Positive, Trace
from node_runner.types import Integrate
from node_runner.views import DataSpec, View


EXACT_UP_TO = 4
"""Dimensions up to which `trace=auto` is exact: there it costs no more than a few products."""


@MODELS.register("cnf", "continuous normalising flow: a density, fitted to points, that can be sampled")
@learns_from(View.points)
class CNF(nn.Module):
    """Carries data at t = 0 to a standard normal at t = T; the density follows the divergence.

    log p(x) = log N(z(T)) + int_0^T tr(df/dz) dt + log |dz(0)/dx|

    Source: Chen et al., Neural Ordinary Differential Equations (2018), theorem 1; the trace
    estimate is Grathwohl et al., FFJORD (2019).

    Args:
        spec: of the points; continuous data are standardised, of grey levels `pixels` decides.
        make_field: makes the field for a state shape.
        solve: the differentiable solve.
        regularisers: integrated along the solve while training.
        trace: how the divergence is computed.
        noise: distribution of Hutchinson's probes, which stay fixed within one solve.
        end_time: T, at which data have become noise.
        steer: half the width of the interval about T from which training draws the end of each solve
            (Ghosh et al., STEER: Simple Temporal Regularization For Neural ODEs, 2020). 0: T itself.
        pixels: the invertible map of grey levels to the space of the flow, fitted to the training part and counted in
            the density: gaussianised, whitened or logit. Other data have none.

    Raises:
        ConfigError: steer reaches back to the start of the solve, or the data lack what `pixels` is fitted to.
    """

    view = View.points
    times: Tensor

    def __init__(
        self,
        spec: DataSpec,
        make_field: MakeField,
        solve: Integrate,
        regularisers: Mapping[str, Regulariser],
        /,
        *,
        trace: Trace = Trace.auto,
        noise: Noise = Noise.rademacher,
        end_time: Positive = 1.0,
        steer: NonNegative = 0.0,
        pixels: Pixels = Pixels.gaussianised,
    ) -> None:
        super().__init__()
        check_steer(steer, end_time)
        self.dim = spec.numel
        image_state = spec.image and getattr(make_field, "state_ndim", 1) == 3
        self.shape = spec.image if image_state else (self.dim,)
        self.field = make_field(self.shape)
        self.solve = solve
        self.regularisers = dict(regularisers)
        self.scaling = pixel_map(spec, pixels) if spec.levels else Standardise(spec.mean, spec.std)
        exact = trace is Trace.exact or (trace is Trace.auto and self.dim <= EXACT_UP_TO)
        self.trace = Trace.exact if exact else Trace.hutchinson
        self.noise = noise
        self.steer = steer
        self.register_buffer("times", torch.tensor([0.0, end_time], dtype=torch.float64))

    def _divergence(self, z: Tensor) -> Integrand:
        if self.trace is Trace.exact:
            return divergence_exact
        if self.noise is Noise.gaussian:
            return Hutchinson(torch.randn_like(z))
        return Hutchinson(torch.randint(0, 2, z.shape, device=z.device).to(z.dtype) * 2 - 1)

    def forward(self, x: Tensor) -> ModelOutput:
        """x: (B, D) -> log-densities (B,) in nats, in the units of the data."""
        return self.density(x)

    def density(self, x: Tensor) -> ModelOutput:
        """x: (B, D) -> log-densities (B,) by a solve."""
        z, log_det = self.scaling(x)
        z = z.reshape(len(z), *self.shape)
        active = self.regularisers if self.training else {}
        divergence = self._divergence(z)
        times, scalars = steered(self.times, self.steer if self.training else 0.0)
        # The log-density is part of the answer and steers the step size; penalties do not.
        solved = penalised_solve(self.solve, self.field, self.shape, z, times, active, [divergence])
        end = solved.ys[-1].reshape(len(x), -1)
        log_prob = standard_normal(end) + solved.integrals[-1, :, 0] + log_det
        return ModelOutput(log_prob, [solved.stats], solved.penalties, scalars=scalars)

    def matching_loss(self, x: Tensor) -> Tensor:
        """The objective () of flow matching for points x (B, D), without a solve: for a warm start."""
        data, _ = self.scaling(x)
        return line_error(self.field, self.shape, data, torch.randn_like(data), self.times[-1])

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density of x (B, D) in nats, (B,)."""
        return self.density(x).value

    @torch.no_grad()
    def sample(self, count: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Draw (count, D) points, in the units of the data."""
        return self.path(count, 2, generator=generator)[-1]

    @torch.no_grad()
    def path(self, count: int, times: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Draw points and show how they come about: (times, count, D), base first, data last.

        States on the way are mapped to the data's units as if they were data.
        """
        like = self.times
        base = torch.randn(count, self.dim, generator=generator, dtype=torch.float64).to(like.device, like.dtype)
        ts = torch.linspace(float(like[-1]), 0.0, times, dtype=like.dtype, device=like.device)
        ys = self.solve(self.field, base.reshape(count, *self.shape), ts).ys
        return torch.stack([self.scaling.inverse(y.reshape(count, -1)) for y in ys])

    @torch.no_grad()
    def to_base(self, x: Tensor) -> Tensor:
        """Carry data x (B, D) to the base: z(T), (B, D)."""
        z, _ = self.scaling(x)
        ys = self.solve(self.field, z.reshape(len(z), *self.shape), self.times).ys
        return ys[-1].reshape(len(x), -1)

    @torch.no_grad()
    def from_base(self, z: Tensor) -> Tensor:
        """Carry z (B, D) at t = T to data, (B, D): the inverse of `to_base`."""
        ys = self.solve(self.field, z.reshape(len(z), *self.shape), self.times.flip(0)).ys
        return self.scaling.inverse(ys[-1].reshape(len(z), -1))


def standard_normal(z: Tensor) -> Tensor:
    """Log-density of N(0, I) at z (B, D), (B,)."""
    return -0.5 * (z.pow(2).sum(dim=1) + z.shape[1] * math.log(2 * math.pi))
