"""Learning a process: what is measured of a model, and what it may see."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from node_runner.batches import Lesson
from node_runner.datasets import DATASETS
from node_runner.learning import ModelOutput
from node_runner.settings import TrainerConfig
from node_runner.tasks import ProcessLearning
from node_runner.tasks.parts.law import given, log_likelihood, marginal
from node_runner.tasks.processes import process_batch
from node_runner.types import SolveStats
from node_runner.views import DataSpec, Series, View
from tests.models.builders import spec as make_spec


class Exact(nn.Module):
    """A model that is the process itself: draws by Cholesky factors of its covariance, wider by a factor."""

    def __init__(self, spec: DataSpec, width: float = 1.0) -> None:
        super().__init__()
        self.spec, self.width = spec, width
        assert spec.law is not None
        self.law = spec.law
        self.observation_std = torch.full((1,), self.law.noise, dtype=torch.float64)

    def forward(self, ts: Tensor, values: Tensor, seen: Tensor, lesson: Lesson | None = None) -> ModelOutput:
        """The objective of a model that knows the law: of standardised values, nats a series."""
        nll = -log_likelihood(self.law, ts, values, seen) - seen.sum(dim=(0, 2)) * self.spec.std.log()
        return ModelOutput(values, [], {}, objective=nll.mean())

    def generate(self, ts: Tensor, count: int, *, generator: torch.Generator | None = None) -> ModelOutput:
        factor = torch.linalg.cholesky(self.law.covariance(ts, ts) + 1e-10 * torch.eye(len(ts)))
        states = self.law.mean(ts).unsqueeze(1) + self.width * factor @ torch.randn(len(ts), count).double()
        return ModelOutput(states.unsqueeze(2), [SolveStats(nfe_forward=7)], {})

    def imagine(
        self, ts: Tensor, values: Tensor, seen: Tensor, count: int, *, generator: torch.Generator | None = None
    ) -> Tensor:
        law = given(self.law, ts, values, seen)
        std = (law.std.square() - self.law.noise**2).clamp(min=0).sqrt()
        return law.mean + self.width * std * torch.randn(count, *values.shape).double()

    def coefficients(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return 1.1 * self.law.drift(y), 0.8 * self.law.diffusion(y)


def setting() -> tuple[DataSpec, Series, Series]:
    data = DATASETS.get("ornstein_uhlenbeck")(train=30, val=1, test=300, times=21, dropped=0.3)
    splits = data.splits(View.processes)
    return data.spec(View.processes), splits.train, splits.test


def test_a_model_that_is_the_process_is_as_near_to_it_as_its_draws_allow():
    torch.manual_seed(0)
    spec, _, test = setting()
    found = ProcessLearning(spec, {}).evaluate(Exact(spec), test, 100)
    assert found["nll"] == found["loss"] == pytest.approx(found["exact_nll"])
    scale = float(marginal(spec.law, test.ts).std.mean())  # type: ignore[arg-type]
    assert found["marginal_w1"] < 3 * 1.25 * scale / math.sqrt(2000)
    assert found["increment_w1"] < 3 * 1.25 * scale / math.sqrt(2000)
    assert found["forecast_w1"] == pytest.approx(1.25 * scale / math.sqrt(200), rel=0.3)
    assert found["coverage"] == pytest.approx(0.9, abs=0.02)
    assert found["drift_error"] == pytest.approx(0.1)
    assert found["diffusion_error"] == pytest.approx(0.2)
    assert found["nfe"] == 7


def test_draws_that_spread_too_little_are_found_out():
    torch.manual_seed(0)
    spec, _, test = setting()
    task = ProcessLearning(spec, {})
    right, narrow = (task.evaluate(Exact(spec, width), test, 100) for width in (1.0, 0.3))
    for name in ("marginal_w1", "increment_w1", "forecast_w1"):
        assert narrow[name] > 1.5 * right[name], name
    assert narrow["coverage"] < 0.8


def test_nll_is_the_mean_over_values_that_are_seen_in_the_data_s_units():
    spec, _, test = setting()
    found = ProcessLearning(spec, {}).evaluate(Exact(spec), test, 7)
    law = spec.law
    assert law is not None
    seen = test.seen.transpose(0, 1)
    total = log_likelihood(law, test.ts, test.ys.transpose(0, 1) * seen, seen).sum()
    assert found["exact_nll"] == pytest.approx(-float(total / seen.sum()))


def test_a_lesson_is_what_is_seen_and_no_more():
    _, _, test = setting()
    batch = process_batch(test, torch.arange(5), 0.25)
    assert torch.equal(batch.lesson.known, batch.seen)
    assert torch.equal(batch.lesson.target, batch.values)
    assert not batch.values[~batch.seen].any()
    assert batch.lesson.progress == 0.25
    assert (test.known[:5].transpose(0, 1) & ~batch.seen).any()


def test_without_anything_known_after_what_is_seen_there_is_no_forecast():
    spec, train, _ = setting()
    found = ProcessLearning(spec, {}).evaluate(Exact(spec), train, 100)
    assert "forecast_w1" not in found
    assert "coverage" not in found


class Still:
    """A model whose draws lie evenly in -1..1, whatever was seen."""

    observation_std = torch.zeros(1, dtype=torch.float64)

    def __call__(self, ts: Tensor, values: Tensor, seen: Tensor, lesson: Lesson | None = None) -> ModelOutput:
        return ModelOutput(values, [], {}, values.new_zeros(()))

    def generate(self, ts: Tensor, count: int) -> ModelOutput:
        return ModelOutput(ts.new_zeros(len(ts), count, 1), [], {})

    def imagine(self, ts: Tensor, values: Tensor, seen: Tensor, count: int) -> Tensor:
        draws = torch.linspace(-1, 1, count, dtype=values.dtype)
        return draws.view(-1, 1, 1, 1).expand(-1, *values.shape)


def test_forecasts_of_series_with_times_of_their_own_are_of_what_comes_after_all_that_is_seen():
    ts = torch.tensor([[0, 1, 2, 3, 5.0], [0, 2.5, 4, 5, 5], [0, 1, 1.5, 2, 5]], dtype=torch.float64)
    ys = torch.tensor([[9, 9, 0, 0.2, 0], [9, 9, 7, 0, 0], [9, 9, 9, 9, 0]], dtype=torch.float64).unsqueeze(2)
    known = ys != 0
    # The last time at which anything is seen is 2: then come 0.2, and 9 and 7, which no draw comes near.
    part = Series(ts, ys, known & (ts <= 2).unsqueeze(2), known)
    assert (part.last_seen, part.grid[0], part.grid[-1]) == (2, 0, 5)
    found = ProcessLearning(make_spec(View.processes, (1,)), {}).evaluate(Still(), part, 2)
    assert found["coverage"] == pytest.approx(1 / 3)


def test_a_step_takes_the_model_s_objective():
    spec, train, _ = setting()
    task, model = ProcessLearning(spec, {}), Exact(spec)
    per_epoch, batch = task.batches(train, TrainerConfig(batch_size=10), 0, lambda step: step / 9)
    output = task.step(model, batch(0))
    expected = model(batch(0).ts, batch(0).values, batch(0).seen).objective
    assert per_epoch == 3
    torch.testing.assert_close(output.loss, expected)
