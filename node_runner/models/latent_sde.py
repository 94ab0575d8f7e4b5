"""The latent SDE: hidden noise drives a path, and what is inferred from observations is the whole path."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from node_runner.batches import Lesson
from node_runner.learning import ModelOutput, Regulariser
from node_runner.models import MODELS
from node_runner.models.parts.block import MakeField
from node_runner.models.parts.declarations import learns_from
from node_runner.models.parts.gaussian import divergence_weight, gaussian_divergence, gaussian_nll
from node_runner.models.parts.observations import Observations, backwards, observations
from node_runner.models.parts.own_times import on_one_grid
from node_runner.models.parts.recurrence import StillMemory
from node_runner.models.parts.standardised import Standardised
from node_runner.models.parts.stochastic import Diagonal, Equation, Guided, normal_draws, path_key
from node_runner.models.parts.unregularised import refuse_regularisers
from node_runner.settings import Count, Positive, Share, Width, WidthOrZero
from node_runner.types import Integrate, Solution
from node_runner.views import DataSpec, View


@MODELS.register("latent_sde", "latent SDE: a variational model of noisy processes, whose hidden path is itself random")
@learns_from(View.processes, View.series)
class LatentSDE(Standardised):
    """dz = h(z) dt + g(z) dW, z(0) ~ N(m, s^2), x(t) ~ N(d(z(t)), noise^2), in standardised units.

    The posterior of z given observations has the same g, another start, and the drift h + g u(t, z, what lies ahead);
    after the last observation u is 0, as it is for the exact posterior. Trained on the evidence lower bound,

        log N(x; d(z), noise^2) - KL(q(z0) || p(z0)) - E int 1/2 |u|^2 dt,

    in nats a series, of the values that training knows, and measured by it, whatever `kl` is. A batch is one path of
    the Brownian motion a series, drawn anew in each step. What lies ahead is read backwards by a GRU, and beside its
    memory stand the next observation and the time to it.

    Source: Li, Wong, Chen, Duvenaud, Scalable gradients for stochastic differential equations (2020), section 5.

    Args:
        spec: of the series.
        make_field: makes h and u, the latter as a field of a wider state.
        solve: the differentiable solve, by a method for stochastic equations.
        regularisers: none.
        latent: numbers in the latent state z.
        hidden: width of the GRU's memory.
        decoder_hidden: width of the hidden layer of the decoder d (0: d is linear).
        diffusion: g before training, in standardised units over the root of a unit of time.
        diffusion_hidden: width of the networks of g, one a coordinate (0: g is constant).
        noise: standard deviation of an observation before training, in units of the training data's deviation.
        kl: weight of the two divergences once annealed; 1 is the bound.
        kl_share: part of training over which that weight grows from 0 (0: it is `kl` from the start).
        draws: paths of the posterior whose mean is the prediction of a series.

    Raises:
        ConfigError: regularisers, which have no integral here.
    """

    def __init__(
        self,
        spec: DataSpec,
        make_field: MakeField,
        solve: Integrate,
        regularisers: Mapping[str, Regulariser],
        /,
        *,
        latent: Width = 4,
        hidden: Width = 32,
        decoder_hidden: WidthOrZero = 0,
        diffusion: Positive = 1.0,
        diffusion_hidden: WidthOrZero = 0,
        noise: Positive = 0.3,
        kl: Positive = 1.0,
        kl_share: Share = 0.1,
        draws: Count = 8,
    ) -> None:
        super().__init__(spec.mean, spec.std)
        refuse_regularisers("latent_sde", "has no integral along its random paths", regularisers)
        (channels,) = spec.shape
        self.view, self.solve, self.latent = spec.view, solve, latent
        self.memory = StillMemory(channels, hidden)
        self.posterior_head = nn.Linear(self.memory.width, 2 * latent)
        self.start = nn.Parameter(torch.zeros(2, latent))  # mean and logarithm of the deviation
        self.prior = make_field((latent,))
        self.guide = make_field((latent + hidden + 2 * channels + 1,))
        self.diffusion = Diagonal(latent, diffusion_hidden, diffusion)
        self.decoder = decoder(latent, decoder_hidden, channels)
        self.log_noise = nn.Parameter(torch.full((channels,), math.log(noise)))
        self.kl, self.kl_share, self.draws = kl, kl_share, draws

    @property
    def observation_std(self) -> Tensor:
        """(D,) deviation of an observation in the data's units."""
        return self.log_noise.exp() * self.std

    @on_one_grid
    def forward(self, ts: Tensor, values: Tensor, seen: Tensor, lesson: Lesson | None = None) -> ModelOutput:
        """ts: (T,), values: (T, B, D), seen: (T, B, D) -> states (T, B, D), and the bound where taught."""
        if lesson is None:
            paths, solution = self._posterior_paths(ts, values, seen, self.draws, None)
            return ModelOutput(paths.mean(dim=0), [solution.stats], {})
        ahead, mean, log_std = self._recognise(ts, values, seen)
        z0 = mean + log_std.exp() * torch.randn_like(mean)
        solution = self._solve_posterior(ts, ahead, z0, path_key())
        states, log_ratio = solution.ys[..., :-1], solution.ys[-1, :, -1]
        ys = self.decoder(states)
        target = self.standardise(lesson.target)
        nll = gaussian_nll(ys - target, self.log_noise, lesson.known) / values.shape[1]
        path, first = log_ratio.mean(), gaussian_divergence(mean, log_std, *self.start).mean()
        weight = divergence_weight(self.kl, self.kl_share, lesson.progress) if self.training else 1.0
        scalars = {"nll": nll, "kl_path": path, "kl_start": first, "noise": self.observation_std.mean()}
        objective = nll + weight * (path + first)
        return ModelOutput(self.restore(ys), [solution.stats], {}, objective, scalars)

    def coefficients(self, y: Tensor) -> tuple[Tensor, Tensor] | None:
        """Drift and diffusion at states (N, 1) in the data's units, (N, 1) each, at time 0.

        None where the equation is not one of the values themselves: they are so by a linear decoder of one number.
        """
        if self.latent > 1 or not isinstance(self.decoder, nn.Linear) or y.shape[1] > 1:
            return None
        slope = self.decoder.weight[0] * self.std
        z = (y - self.mean - self.decoder.bias * self.std) / slope
        drift: Tensor = self.prior(y.new_zeros(()), z)
        diffusion: Tensor = self.diffusion(z)
        return drift * slope, diffusion * slope.abs()

    @torch.no_grad()
    def generate(self, ts: Tensor, count: int, *, generator: torch.Generator | None = None) -> ModelOutput:
        """Paths (T, count, D) of the prior, without the noise of observations."""
        mean, log_std = self.start
        z0 = mean + log_std.exp() * normal_draws(count, mean, generator)
        solution = self.solve(Equation(self.prior, self.diffusion, path_key(generator)), z0, ts - ts[0])
        return ModelOutput(self.restore(self.decoder(solution.ys)), [solution.stats], {})

    @torch.no_grad()
    @on_one_grid
    def imagine(
        self, ts: Tensor, values: Tensor, seen: Tensor, count: int, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Paths (count, T, B, D) of the posterior, without the noise of observations."""
        return self._posterior_paths(ts, values, seen, count, generator)[0]

    def _posterior_paths(
        self, ts: Tensor, values: Tensor, seen: Tensor, count: int, generator: torch.Generator | None
    ) -> tuple[Tensor, Solution]:
        """Paths (count, T, B, D) in the data's units, and the solve that made them."""
        ahead, mean, log_std = self._recognise(ts, values, seen)
        z0 = (mean + log_std.exp() * normal_draws(count, mean, generator)).flatten(0, 1)
        solution = self._solve_posterior(ts, ahead.repeated(count), z0, path_key(generator))
        ys = self.restore(self.decoder(solution.ys[..., :-1]))
        return ys.unflatten(1, (count, -1)).transpose(0, 1), solution

    def _solve_posterior(self, ts: Tensor, ahead: Ahead, z0: Tensor, entropy: int) -> Solution:
        since = ts - ts[0]
        control = Control(self.guide, since, ahead)
        guided = Guided(control, self.prior, self.diffusion, entropy, (ahead.context,))
        return self.solve(guided, torch.cat((z0, torch.zeros_like(z0[:, :1])), dim=1), since)

    def _recognise(self, ts: Tensor, values: Tensor, seen: Tensor) -> tuple[Ahead, Tensor, Tensor]:
        """What lies ahead of each time, and mean and logarithm of the deviation (B, latent) of z at ts[0]."""
        back, *series = backwards(ts, torch.where(seen, self.standardise(values), 0), seen)
        known = observations(back, *series)
        memory = self.memory(back, *series)
        # At each time of the grid, in its own direction: the observations from there on, itself included.
        count = series[1].any(dim=2).cumsum(dim=0).flip(0)  # (T, B)
        h = torch.cat((memory.before[1:], memory.end.unsqueeze(0))).flip(0)
        following, when = nearest(known, count)
        ahead = Ahead(torch.cat((h, following), dim=2), ts[-1] - ts[0] - when, count > 0)
        mean, log_std = self.posterior_head(self.memory.told(memory.end, memory.left)).chunk(2, dim=1)
        return ahead, mean, log_std


class Ahead(NamedTuple):
    """What lies ahead of each time of a grid, that time included.

    context: (T, B, C) memory of all observations from there on, and values and mask of the first of them;
    time: (T, B) of that first one, since the start; some: (T, B) whether there is one.
    """

    context: Tensor
    time: Tensor
    some: Tensor

    def repeated(self, count: int) -> Ahead:
        """The same for `count` paths of each series, (T, count * B, ...)."""
        return Ahead(self.context.repeat(1, count, 1), self.time.repeat(1, count), self.some.repeat(1, count))


class Control(nn.Module):
    """u(t, z, what lies ahead of t), 0 where nothing does.

    Args:
        guide: a field of [z, context, time to the next observation], whose first numbers are u.
        since: (T,) times of the grid.
        ahead: of each time of the grid; between two of them that of the second counts.
    """

    def __init__(self, guide: nn.Module, since: Tensor, ahead: Ahead) -> None:
        super().__init__()
        self.guide, self.ahead = guide, ahead
        # A little early, so that rounding does not take a time of the grid for one before it.
        self.starts = since - 1e-4 * since.diff().min() if len(since) > 1 else since

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        """t: (), z: (B, Z) -> (B, Z)."""
        place = torch.searchsorted(self.starts, t.reshape(1), right=True).clamp(max=len(self.starts) - 1)
        context, time, some = (x.index_select(0, place)[0] for x in self.ahead)
        to_go = torch.where(some, time - t, 0).unsqueeze(1)
        u = self.guide(t, torch.cat((z, context, to_go), dim=1))[:, : z.shape[1]]
        return torch.where(some.unsqueeze(1), u, 0)


def nearest(known: Observations, count: Tensor) -> tuple[Tensor, Tensor]:
    """Values and mask (T, B, 2 D) and time (T, B) of the last of the first `count` (T, B) observations.

    Values and mask are 0 where there is none.
    """
    place = (count - 1).clamp(min=0)
    wide = place.unsqueeze(-1).expand(-1, -1, known.values.shape[2])
    found = torch.cat((known.values.gather(0, wide), known.seen.gather(0, wide).to(known.values.dtype)), dim=2)
    return torch.where((count > 0).unsqueeze(-1), found, 0), known.times.gather(0, place)


def decoder(latent: int, hidden: int, channels: int) -> nn.Module:
    """What an observation is of a hidden state (..., latent) -> (..., channels)."""
    if not hidden:
        linear = nn.Linear(latent, channels)
        nn.init.orthogonal_(linear.weight)  # values as large as hidden ones
        return linear
    return nn.Sequential(nn.Linear(latent, hidden), nn.Tanh(), nn.Linear(hidden, channels))
