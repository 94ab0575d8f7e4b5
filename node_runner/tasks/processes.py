"""Learning a process from its paths: not what the next value is, but how values are distributed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from node_runner.batches import Lesson, SeriesBatch
from node_runner.errors import ConfigError
from node_runner.learning import ProcessModel, Regulariser, StepOutput
from node_runner.settings import TrainerConfig
from node_runner.tasks.parts.batches import Shuffled
from node_runner.tasks.parts.law import given, increment, log_likelihood, marginal, wasserstein
from node_runner.tasks.parts.penalty import penalised
from node_runner.tasks.series import series_batch
from node_runner.views import DataSpec, Series, View


DRAWS, FORECASTS, ROWS = 2000, 200, 100
"""Paths drawn from nothing, paths drawn from what is seen of each series, and series at a time."""


class ProcessLearning:
    """Likelihood of the values that are seen, and the distance of a model's draws from the process.

    Training minimises the model's own objective; val/loss and `nll` are those of a part, in nats a value and in the
    data's units: the negative log-likelihood, or the bound of it that a variational model has (its objective outside of
    training). Where the law is
    known, `exact_nll` is what nobody can beat on average, and Wasserstein-1 distances in the data's units tell how
    far draws of observations are from it: `marginal_w1` and `increment_w1` of draws from nothing, mean over times,
    the latter of the difference between neighbours in time. Where something is known after all that is seen, draws
    that go on from there are held against the law given what was seen (`forecast_w1`), and `coverage` is the share
    of the values that lie in their central 90 %.
    """

    name = "process"
    view = View.processes

    def __init__(self, spec: DataSpec, regularisers: Mapping[str, Regulariser]) -> None:
        self.spec = spec
        self.regularisers = regularisers

    def batches(
        self, part: Series, config: TrainerConfig, seed: int, progress: Callable[[int], float]
    ) -> tuple[int, Callable[[int], SeriesBatch]]:
        """Steps in an epoch, and the batch of each step: whole series."""
        shuffled = Shuffled(len(part), config.batch_size, seed, part.device)
        return shuffled.steps_per_epoch, lambda step: process_batch(part, shuffled(step), progress(step))

    def step(self, model: nn.Module, batch: SeriesBatch) -> StepOutput:
        """Loss and scalars of one batch."""
        output = model(batch.ts, batch.values, batch.seen, batch.lesson)

        def no_loss() -> Tensor:
            raise ConfigError("a process is learned by a model with an objective of its own: use model=latent_sde")

        total, scalars = penalised(no_loss, output, self.regularisers)
        return StepOutput(total, scalars, output.solves)

    @torch.no_grad()
    def evaluate(self, model: Any, part: Series, batch_size: int) -> dict[str, float]:
        """Loss and nll, distances from the law where it is known, and the evaluations of a solve of draws."""
        found = self._likelihood(model, part, batch_size)
        drawn = model.generate(part.grid, DRAWS)
        if self.spec.law is not None:
            paths = self._observed(model, drawn.value.transpose(0, 1))
            for name, law, draws in (
                ("marginal_w1", marginal(self.spec.law, part.grid), paths),
                ("increment_w1", increment(self.spec.law, part.grid), paths.diff(dim=1)),
            ):
                channels = [wasserstein(draws[..., i], law).mean() for i in range(draws.shape[2])]
                found[name] = float(torch.stack(channels).mean())
        found |= self._coefficients(model, part) | self._forecasts(model, part)
        return {**found, "nfe": float(drawn.nfe)}

    def _likelihood(self, model: Any, part: Series, batch_size: int) -> dict[str, float]:
        nll = exact = 0.0
        for rows in part.rows().split(batch_size):
            batch = process_batch(part, rows)
            nll += float(model(batch.ts, batch.values, batch.seen, batch.lesson).objective) * len(rows)
            if self.spec.law is not None:
                exact -= float(log_likelihood(self.spec.law, batch.ts, batch.values, batch.seen).sum())
        counts = part.seen.sum(dim=(0, 1)).double().cpu()
        total = float(counts.sum())
        # The objective is of standardised values.
        nll = (nll + float((counts * self.spec.std.cpu().log()).sum())) / total
        return {"loss": nll, "nll": nll} | ({} if self.spec.law is None else {"exact_nll": exact / total})

    def _coefficients(self, model: Any, part: Series) -> dict[str, float]:
        law, y = self.spec.law, part.ys[part.seen.all(dim=2)]
        learned = model.coefficients(y) if hasattr(model, "coefficients") else None
        if law is None or learned is None:
            return {}
        true = law.drift(y), law.diffusion(y)
        names = ("drift_error", "diffusion_error")
        return {n: float((a - b).norm() / b.norm()) for n, a, b in zip(names, learned, true, strict=True)}

    def _forecasts(self, model: ProcessModel, part: Series) -> dict[str, float]:
        end = part.last_seen
        after = int((part.known & (part.times > end).unsqueeze(2)).sum())
        if not after:
            return {}
        covered, distance, places = 0.0, 0.0, 0
        for rows in part.rows().split(ROWS):
            batch = series_batch(part, rows)
            later = batch.times > end
            first = int((~later.any(dim=1)).sum())
            states = model.imagine(batch.ts, batch.values, batch.seen, FORECASTS)
            draws = self._observed(model, states[:, first:])
            target, known = batch.lesson.target[first:], (batch.lesson.known & later.unsqueeze(2))[first:]
            low, high = (draws.kthvalue(round(share * FORECASTS), dim=0).values for share in (0.05, 0.95))
            covered += float(((target >= low) & (target <= high) & known).sum())
            if self.spec.law is not None:
                law = given(self.spec.law, batch.ts, batch.values, batch.seen)
                exact = type(law)(law.mean[first:], law.std[first:])
                distance += float(wasserstein(draws, exact).sum())
                places += target.numel()
        shares = {"coverage": covered / after}
        return shares if self.spec.law is None else {"forecast_w1": distance / places, **shares}

    def _observed(self, model: ProcessModel, states: Tensor) -> Tensor:
        """States (..., D) with the noise that observations of the model have."""
        return states + model.observation_std * torch.randn_like(states)


def process_batch(part: Series, rows: Tensor, progress: float = 1.0) -> SeriesBatch:
    """Series `rows` (B,), (T, B, D): what is seen, and nothing else to be taught."""
    batch = series_batch(part, rows, progress)
    return batch._replace(lesson=Lesson(batch.values, batch.seen, progress))
