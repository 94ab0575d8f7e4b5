"""The latent ODE: a distribution over where a hidden trajectory began, inferred from irregular observations."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from node_runner.batches import Lesson
from node_runner.learning import ModelOutput, Regulariser
from node_runner.models import MODELS
from node_runner.models.parts.block import Flow, MakeField, ODEBlock
from node_runner.models.parts.cut import cut_short
from node_runner.models.parts.declarations import learns_from
from node_runner.models.parts.gaussian import divergence_weight, gaussian_divergence, gaussian_nll
from node_runner.models.parts.observations import backwards, onward
from node_runner.models.parts.own_times import Together, own_times
from node_runner.models.parts.recurrence import MovingMemory, StillMemory, costs
from node_runner.models.parts.standardised import Standardised
from node_runner.settings import NonNegative, Positive, Recognition, Share, Width
from node_runner.types import Integrate
from node_runner.views import DataSpec, View


@MODELS.register("latent", "latent ODE: a variational model of irregular series that interpolates and continues them")
@learns_from(View.series, View.processes)
class LatentODE(Standardised):
    """z(t0) ~ q(z | observations), dz/dt = f(z), x(t) ~ N(g(z(t)), noise^2), in standardised units.

    The observations are read backwards in time. Trained on the evidence lower bound, in nats a series, of the values
    that training knows, with the weights of `kl` and `agreement` and what `cut` takes away; measured by the bound
    itself. Predictions begin at the posterior's mean.

    Source: Chen et al., Neural Ordinary Differential Equations (2018), section 5; the ODE-RNN as recognition network
    is Rubanova, Chen, Duvenaud, Latent ODEs for Irregularly-Sampled Time Series (2019).

    Args:
        spec: of the series.
        make_field: makes the fields of the latent state, and of the recognition network's memory where that has one.
        solve: the differentiable solve.
        regularisers: integrated along the latent solve while training.
        latent: numbers in the latent state z.
        hidden: width of the recognition network's memory and of the decoder g.
        recognition: what reads the observations; an ode_rnn solves anew from each time at which anything is seen to the
            next, which a solver with fixed steps does at a tenth of the evaluations.
        noise: standard deviation of an observation, in units of the training data's deviation.
        kl: weight of KL(q || N(0, 1)) once annealed; 1 is the bound.
        kl_share: part of training over which that weight grows from 0 (0: it is `kl` from the start).
        cut: share of the training steps in which nothing is seen after a random time, but all that is known is taught.
        agreement: weight of -log q(z(t) | observations from t on), in nats a series, at a random t along the draw:
            where one path arrives, others begin, so that the field knows how to go on. 0 is the bound alone. Of a kind
            with the continuity of short paths in Iakovlev et al., Latent Neural ODEs with Sparse Bayesian Multiple
            Shooting (2023).
    """

    def __init__(
        self,
        spec: DataSpec,
        make_field: MakeField,
        solve: Integrate,
        regularisers: Mapping[str, Regulariser],
        /,
        *,
        latent: Width = 6,
        hidden: Width = 32,
        recognition: Recognition = Recognition.gru,
        noise: Positive = 0.1,
        kl: Positive = 1.0,
        kl_share: Share = 0.3,
        cut: Share = 0.0,
        agreement: NonNegative = 0.0,
    ) -> None:
        super().__init__(spec.mean, spec.std)
        self.view = spec.view
        self.block = ODEBlock(make_field, solve, regularisers, (latent,))
        self.memory = (
            MovingMemory(spec.shape[0], hidden, ODEBlock(make_field, solve, {}, (hidden,)))
            if recognition is Recognition.ode_rnn
            else StillMemory(spec.shape[0], hidden)
        )
        self.posterior_head = nn.Linear(self.memory.width, 2 * latent)
        self.decoder = nn.Sequential(nn.Linear(latent, hidden), nn.Tanh(), nn.Linear(hidden, spec.shape[0]))
        self.noise, self.kl, self.kl_share = noise, kl, kl_share
        self.cut, self.agreement = cut, agreement

    def posterior(
        self, ts: Tensor, values: Tensor, seen: Tensor, flows: list[Flow] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the deviation (B, latent) of z at ts[0]; its solves are added to `flows`.

        ts: (T,) or (T, B), values: (T, B, D), seen: (T, B, D).
        """
        z = torch.where(seen, self.standardise(values), 0)
        read = self.memory(*backwards(ts, z, seen))
        if flows is not None:
            flows += read.flows
        mean, log_std = self.posterior_head(self.memory.told(read.end, read.left)).chunk(2, dim=1)
        return mean, log_std

    @own_times
    def forward(self, ts: Tensor, values: Tensor, seen: Tensor, lesson: Lesson | None = None) -> ModelOutput:
        """ts: (T,) or (T, B), values: (T, B, D), seen: (T, B, D) -> predictions (T, B, D), and the bound where taught.

        One solve has the times of all series of the batch, and a solver with fixed steps takes one to each.
        """
        flows: list[Flow] = []
        left = cut_short(ts, seen, lesson, self.cut) if self.training else seen
        mean, log_std = self.posterior(ts, values, left, flows)
        z0 = mean if lesson is None else mean + log_std.exp() * torch.randn_like(mean)
        grid = Together(ts)
        flow = self.block(z0, grid.ts - grid.ts[0])
        disagreement = None
        if self.training and lesson is not None and self.agreement:
            place = int(torch.randint(len(grid.ts), ()))
            later = onward(ts, values, seen, grid.ts[place])
            disagreement = self._disagreement(flow.ys[place], *later, flows)
        solves, penalties = costs([*flows, flow])
        predicted = self.decoder(grid.of_each(flow.ys))
        ys = self.restore(predicted)
        if lesson is None:
            return ModelOutput(ys, solves, penalties)
        error = torch.where(lesson.known, (self.standardise(lesson.target) - predicted) / self.noise, 0)
        constant = math.log(self.noise) + 0.5 * math.log(2 * math.pi)
        nll = (0.5 * error.pow(2).sum() + constant * lesson.known.sum()) / len(mean)
        divergence = gaussian_divergence(mean, log_std).mean()
        weight = divergence_weight(self.kl, self.kl_share, lesson.progress) if self.training else 1.0
        scalars = {"nll": nll, "kl": divergence, "mse": error.pow(2).sum() * self.noise**2 / lesson.known.sum()}
        objective = nll + weight * divergence
        if disagreement is not None:
            scalars["disagreement"] = disagreement
            objective = objective + self.agreement * disagreement
        return ModelOutput(ys, solves, penalties, objective, scalars)

    def _disagreement(self, z: Tensor, ts: Tensor, values: Tensor, seen: Tensor, flows: list[Flow]) -> Tensor:
        """-log q(z | observations) (), mean over series: z (B, Z) at ts[0], where all begin."""
        mean, log_std = self.posterior(ts, values, seen, flows)
        return gaussian_nll(z - mean, log_std, torch.ones_like(mean, dtype=torch.bool)) / len(mean)

    @property
    def observation_std(self) -> Tensor:
        """(D,) deviation of an observation in the data's units."""
        return self.noise * self.std

    @torch.no_grad()
    def generate(self, ts: Tensor, count: int, *, generator: torch.Generator | None = None) -> ModelOutput:
        """Trajectories (T, count, D) from draws of N(0, 1), without the noise of observations."""
        z0 = torch.randn(count, *self.block.state_shape, generator=generator, dtype=torch.float64)
        flow = self.block(z0.to(self.mean.device, self.mean.dtype), ts - ts[0])
        return ModelOutput(self.restore(self.decoder(flow.ys)), [flow.stats], {})

    def trajectory(self, z0: Tensor, ts: Tensor) -> Tensor:
        """Latent states (T, B, Z) at ts (T,) from z0 (B, Z) at ts[0]."""
        return self.block(z0, ts - ts[0]).ys

    def decode(self, z: Tensor) -> Tensor:
        """(..., Z) -> values (..., D) in the data's units."""
        return self.restore(self.decoder(z))

    @torch.no_grad()
    def between(self, ts: Tensor, values: Tensor, seen: Tensor, at: Tensor) -> Tensor:
        """Predictions (F, B, D) at any times (F,), of which the first is that at which the first series begins."""
        return self.decode(self.trajectory(self.posterior(ts, values, seen)[0], at))

    @torch.no_grad()
    def imagine(
        self,
        ts: Tensor,
        values: Tensor,
        seen: Tensor,
        count: int,
        *,
        generator: torch.Generator | None = None,
        at: Tensor | None = None,
    ) -> Tensor:
        """Trajectories (count, T, B, D) from draws of the posterior, without the noise of observations.

        They are given at the times of the series, or at times (F,) as `between` takes them.
        """
        mean, log_std = self.posterior(ts, values, seen)
        draws = torch.randn(count, *mean.shape, generator=generator, dtype=torch.float64).to(mean.device, mean.dtype)
        z0 = (mean + log_std.exp() * draws).flatten(0, 1)
        grid = Together(ts if at is None else at)
        paths = self.trajectory(z0, grid.ts).unflatten(1, (count, -1))  # (U, count, B, latent)
        return self.decode(grid.of_each(paths.transpose(1, 2)).transpose(1, 2)).transpose(0, 1)
