"""The neural SDE: drift and diffusion of a process whose states are observed."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from node_runner.batches import Lesson
from node_runner.errors import ConfigError
from node_runner.learning import ModelOutput, Regulariser
from node_runner.models import MODELS
from node_runner.models.parts.block import MakeField
from node_runner.models.parts.declarations import learns_from, makes_no_use_of
from node_runner.models.parts.gaussian import gaussian_nll
from node_runner.models.parts.own_times import on_one_grid
from node_runner.models.parts.standardised import Standardised
from node_runner.models.parts.stochastic import Diagonal, Equation, normal_draws, path_key
from node_runner.models.parts.unregularised import refuse_regularisers
from node_runner.settings import Positive, WidthOrZero
from node_runner.types import Integrate
from node_runner.views import DataSpec, View


@MODELS.register("neural_sde", "neural SDE: drift and diffusion of a process that is observed without noise")
@learns_from(View.processes)
@makes_no_use_of("adjoint")
class NeuralSDE(Standardised):
    """dx = f(x) dt + g(x) dW, x(0) ~ N(m, s^2), in standardised units; the states are what is observed.

    Trained without a solve, on the pseudo-likelihood of Euler and Maruyama: given one observation, the next one a gap
    d later has the law N(x + f(x) d, g(x)^2 d). Of an Ornstein-Uhlenbeck process with rate a that finds the drift
    times (1 - e^(-a d)) / (a d) and g^2 times (1 - e^(-2 a d)) / (2 a d): 2.5 % too little each at a d = 0.05.
    Noise of the observations would be taken for diffusion. Draws are solves.

    Source: Florens-Zmirou, Approximate discrete-time schemes for statistics of diffusion processes (1989).

    Args:
        spec: of the series.
        make_field: makes f.
        solve: by a method for stochastic equations, of draws alone.
        regularisers: none.
        diffusion: g before training, in standardised units over the root of a unit of time.
        diffusion_hidden: width of the networks of g, one a coordinate (0: g is constant).

    Raises:
        ConfigError: regularisers; or data that are known to be observed with noise.
    """

    view = View.processes

    def __init__(
        self,
        spec: DataSpec,
        make_field: MakeField,
        solve: Integrate,
        regularisers: Mapping[str, Regulariser],
        /,
        *,
        diffusion: Positive = 1.0,
        diffusion_hidden: WidthOrZero = 16,
    ) -> None:
        super().__init__(spec.mean, spec.std)
        refuse_regularisers("neural_sde", "has no integral along its random paths", regularisers)
        if spec.law is not None and spec.law.noise:
            raise ConfigError(
                f"model=neural_sde takes an observation for the state, and dataset={spec.dataset} observes with "
                f"noise {spec.law.noise:g}: use dataset.noise=0, or model=latent_sde"
            )
        self.solve = solve
        self.drift = make_field(spec.shape)
        self.diffusion = Diagonal(spec.shape[0], diffusion_hidden, diffusion)
        self.start = nn.Parameter(torch.zeros(2, *spec.shape))  # mean and logarithm of the deviation

    @property
    def observation_std(self) -> Tensor:
        """(D,) zeros: states are what is observed."""
        return torch.zeros_like(self.std)

    @on_one_grid
    def forward(self, ts: Tensor, values: Tensor, seen: Tensor, lesson: Lesson | None = None) -> ModelOutput:
        """ts: (T,), values: (T, B, D), seen: (T, B, D) -> at each time the last state that is seen, and the objective.

        A state counts as seen where all of its axes are.
        """
        since, where = ts - ts[0], seen.all(dim=2)
        z = self.standardise(values)
        place = last_place(where)
        held = z.gather(0, place.clamp(min=0).unsqueeze(2).expand_as(z))
        output = ModelOutput(self.restore(held), [], {})
        if lesson is None:
            return output
        mean, log_std = self.start
        first = where & (torch.arange(len(ts), device=ts.device) == 0).unsqueeze(1)
        nll = gaussian_nll(z - mean, log_std, first.unsqueeze(2).expand_as(z))
        # Pairs of an observation and the one before it.
        later = where[1:] & (place[:-1] >= 0)
        before, after = held[:-1][later], z[1:][later]
        rows = later.nonzero(as_tuple=True)
        times, gap = since[place[:-1][later]], since[1:][rows[0]] - since[place[:-1][later]]
        gap = gap.unsqueeze(1)
        step = after - before - self.drift(times, before) * gap
        deviation = self.diffusion(before) * gap.sqrt()
        terms = 0.5 * (step / deviation).square() + deviation.log() + 0.5 * math.log(2 * math.pi)
        nll = (nll + terms.sum()) / values.shape[1]
        return output._replace(objective=nll, scalars={"diffusion": (self.diffusion(before) * self.std).mean()})

    def coefficients(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Drift and diffusion at states (N, D) in the data's units, (N, D) each, at time 0."""
        z = self.standardise(y)
        drift: Tensor = self.drift(y.new_zeros(()), z)
        diffusion: Tensor = self.diffusion(z)
        return drift * self.std, diffusion * self.std

    @torch.no_grad()
    def generate(self, ts: Tensor, count: int, *, generator: torch.Generator | None = None) -> ModelOutput:
        """Paths (T, count, D) from draws of x(0)."""
        mean, log_std = self.start
        z0 = mean + log_std.exp() * normal_draws(count, mean, generator)
        solution = self.solve(Equation(self.drift, self.diffusion, path_key(generator)), z0, ts - ts[0])
        return ModelOutput(self.restore(solution.ys), [solution.stats], {})

    @torch.no_grad()
    @on_one_grid
    def imagine(
        self, ts: Tensor, values: Tensor, seen: Tensor, count: int, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Paths (count, T, B, D) from the last state that is seen on; before that the last one seen stands still."""
        held = self(ts, values, seen).value
        last = last_place(seen.all(dim=2))[-1].clamp(min=0)
        z0 = self.standardise(held[-1]).repeat(count, 1)
        begin = (ts - ts[0])[last].repeat(count)
        waiting = Waiting(self.drift, self.diffusion, path_key(generator), begin - 1e-4 * ts.diff().min())
        ys = self.restore(self.solve(waiting, z0, ts - ts[0]).ys)
        paths = ys.unflatten(1, (count, -1)).transpose(0, 1)
        before = torch.arange(len(ts), device=ts.device).unsqueeze(1) <= last
        return torch.where(before.unsqueeze(2), held, paths)


class Waiting(Equation):
    """An equation that holds in each sample from its own time on; before that nothing moves.

    Args:
        drift, diffusion, entropy: as for `Equation`.
        begin: (B,) times.
    """

    def __init__(self, drift: nn.Module, diffusion: nn.Module, entropy: int, begin: Tensor) -> None:
        super().__init__(drift, diffusion, entropy)
        self.begin = begin

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """Drift (B, D)."""
        return torch.where((t >= self.begin).unsqueeze(1), super().forward(t, y), 0)

    def diffusion(self, t: Tensor, y: Tensor) -> Tensor:
        """Diffusion (B, D)."""
        return torch.where((t >= self.begin).unsqueeze(1), super().diffusion(t, y), 0)


def last_place(where: Tensor) -> Tensor:
    """Index (T, B) of the last time up to each at which `where` (T, B) is true, -1 where there is none."""
    places = torch.arange(len(where), device=where.device).unsqueeze(1)
    return torch.where(where, places, -1).cummax(dim=0).values
