"""The latent SDE and the neural SDE: bounds, draws, gradients, and what they may see."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from node_runner.adjoints import ADJOINTS
from node_runner.batches import Lesson
from node_runner.datasets import DATASETS
from node_runner.engines import ENGINES
from node_runner.errors import ConfigError
from node_runner.models.latent_sde import Control
from node_runner.models.parts.gaussian import gaussian_divergence
from node_runner.regularisers import REGULARISERS
from node_runner.settings import ToleranceConfig
from node_runner.solving import Solve, Tolerances
from node_runner.tasks.parts.law import log_likelihood
from node_runner.tasks.processes import process_batch
from node_runner.views import DataSpec, View
from tests.models.builders import LinearField, field_factory, make_model, spec
from tests.models.test_series import series
from tests.problems import make_method
from tests.runs import make_run, trainer_of


pytest.importorskip("torchsde", reason="torchsde is not installed: pip install 'node-runner[sde]'")


def solver(name: str = "euler_maruyama", adjoint: str = "off", **options: Any) -> Solve:
    return Solve(
        ENGINES.get("torchsde")(), make_method(name, **options), ADJOINTS.get(adjoint)(), Tolerances(ToleranceConfig())
    )


def model_of(name: str, data: DataSpec | None = None, solve: Solve | None = None, **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    data = data or spec(View.processes, (2,), mean=[0.1, 0.2], std=[0.9, 1.1])
    return make_model(name, data, field_factory(width=8), solve=solve or solver(), **settings).double()


@pytest.mark.parametrize(
    ("solve", "adjoint"), [("euler_maruyama", "off"), ("reversible_heun", "on")], ids=["euler", "reversible"]
)
@pytest.mark.parametrize("name", ["latent_sde", "neural_sde"])
def test_gradients_agree_with_finite_differences(name: str, solve: str, adjoint: str):
    more = {"latent": 2, "hidden": 6, "decoder_hidden": 4} if name == "latent_sde" else {}
    # Outputs between two steps lie on a line, which the reversible gradient does not know: steps end at all outputs.
    model = model_of(name, solve=solver(solve, adjoint, step_size=0.1), diffusion_hidden=4, **more)
    ts, values, seen = series(3)

    def loss() -> Tensor:
        torch.manual_seed(5)  # the start and the path
        objective: Tensor = model(ts, values, seen, Lesson(values, seen, 1.0)).objective
        return objective

    loss().backward()
    for parameter in model.parameters():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        place = int(gradient.abs().argmax())
        changed = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                parameter.view(-1)[place] += step
                changed.append(float(loss()))
                parameter.view(-1)[place] -= step
        difference = (changed[0] - changed[1]) / 2e-5
        assert float(gradient.view(-1)[place]) == pytest.approx(difference, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", ["latent_sde", "neural_sde"])
def test_what_is_not_seen_does_not_count(name: str):
    model = model_of(name)
    ts, values, seen = series()
    found = []
    for hidden in (0.0, 7.0):
        torch.manual_seed(1)
        changed = torch.where(seen, values, hidden)
        found.append(model(ts, changed, seen, Lesson(changed, seen, 1.0)).objective)
    torch.testing.assert_close(*found)


# --- the latent SDE --------------------------------------------------------------------------------


def known_process() -> tuple[nn.Module, Any, DataSpec]:
    """A latent SDE that is the Ornstein-Uhlenbeck process itself, without control; test paths, and their law."""
    data = DATASETS.get("ornstein_uhlenbeck")(train=20, val=1, test=400, times=31, dropped=0.5, noise=0.3)
    described = data.spec(View.processes)
    model = model_of("latent_sde", described, solver(step_size=0.02), latent=1, noise=1.0)
    mean, std = described.mean, described.std
    with torch.no_grad():
        model.prior = LinearField([[-1.0]])  # in the data's units, which the decoder translates
        model.diffusion.bias.fill_(math.log(math.expm1(0.5)))
        model.start.copy_(torch.tensor([[1.0], [math.log(0.2)]]))
        model.decoder.weight.copy_(1 / std.unsqueeze(1))
        model.decoder.bias.copy_(-mean / std)
        model.log_noise.copy_((0.3 / std).log())
    return model, data.splits(View.processes).test, described


def test_a_model_with_the_true_parameters_draws_the_true_process():
    model, test, described = known_process()
    torch.manual_seed(0)
    assert described.law is not None
    ys = model.generate(test.ts, 4000).value[..., 0]  # type: ignore[operator]
    exact = described.law.covariance(test.ts, test.ts)
    assert float((ys.mean(dim=1) - described.law.mean(test.ts)).abs().max()) < 0.03
    assert float((ys.cov() - exact).abs().max()) < 0.012
    assert float(model.observation_std.detach()) == pytest.approx(0.3)  # type: ignore[union-attr]
    drift, diffusion = model.coefficients(test.ys[:, 0])  # type: ignore[operator]
    torch.testing.assert_close(drift, -test.ys[:, 0])
    torch.testing.assert_close(diffusion, torch.full_like(drift, 0.5))


def test_the_bound_lies_below_the_true_likelihood_and_a_bad_posterior_below_a_better_one():
    model, test, described = known_process()
    batch = process_batch(test, torch.arange(400))
    assert described.law is not None

    def bound() -> float:
        torch.manual_seed(2)
        with torch.no_grad():
            nll = model(batch.ts, batch.values, batch.seen, batch.lesson).objective
        return -float(nll) - float(batch.seen.sum() / 400 * described.std.log())

    exact = float(log_likelihood(described.law, batch.ts, batch.values, batch.seen).mean())
    # What the posterior of z(0) is told is left at the prior, and u = 0: the bound of the prior as a posterior.
    with torch.no_grad():
        model.posterior_head.weight.zero_()
        model.posterior_head.bias.copy_(model.start.flatten())
        for parameter in model.guide.out.parameters():
            parameter.zero_()
    without = bound()

    class Towards(nn.Module):
        """u that pulls z to the next observation, as strongly as it is near."""

        def forward(self, t: Tensor, x: Tensor) -> Tensor:
            z, following, to_go = x[:, :1], x[:, -3:-2] * described.std + described.mean, x[:, -1:]
            pull = (following - z) * 0.5 / (0.3**2 + 0.25 * to_go)
            return torch.cat((pull, x[:, 1:]), dim=1)

    model.guide = Towards()
    guided = bound()
    assert without < guided < exact
    assert exact - guided < 0.2 * (exact - without)


def test_the_weight_of_the_divergences_in_training_leaves_the_bound_that_is_measured_as_it_is():
    ts, values, seen = series()
    objectives = []
    for kl in (1.0, 0.2):
        model = model_of("latent_sde", kl=kl).eval()
        torch.manual_seed(5)
        with torch.no_grad():
            objectives.append(model(ts, values, seen, Lesson(values, seen, 1.0)).objective)
    assert objectives[0] == objectives[1]


def test_after_the_last_observation_the_posterior_is_the_prior():
    model = model_of("latent_sde", latent=2)
    ts, values, seen = series(5)
    seen[3:] = False
    seen[2, 1:] = True
    seen[2, :1] = seen[1, :1] = False  # the first series is seen at ts[0] alone
    with torch.no_grad():
        ahead, _, _ = model._recognise(ts, torch.where(seen, values, 0), seen)  # type: ignore[operator]
        control = Control(model.guide, ts, ahead)  # type: ignore[arg-type]
        z = torch.randn(5, 2, dtype=torch.float64)
        before, after = control((ts[1] + ts[2]) / 2, z), control((ts[2] + ts[3]) / 2, z)
    assert not before[0].any()
    assert bool((before[1:] != 0).all())
    assert not after.any()


def test_the_divergence_of_two_gaussians():
    mean, log_std = torch.tensor([[0.5, -1.0]]), torch.tensor([[0.0, 0.7]])
    prior_mean, prior_log_std = torch.tensor([0.1, 0.2]), torch.tensor([-0.5, 0.3])
    exact = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, log_std.exp()), torch.distributions.Normal(prior_mean, prior_log_std.exp())
    ).sum(dim=1)
    torch.testing.assert_close(gaussian_divergence(mean, log_std, prior_mean, prior_log_std), exact)


def test_a_prediction_is_the_mean_of_draws():
    model = model_of("latent_sde", spec(View.series, (2,), mean=[0.0, 0.0], std=[1.0, 1.0]), draws=5)
    ts, values, seen = series()
    torch.manual_seed(4)
    predicted = model(ts, values, seen).value
    torch.manual_seed(4)
    torch.testing.assert_close(predicted, model.imagine(ts, values, seen, 5).mean(dim=0))


@pytest.mark.parametrize("name", ["latent_sde", "neural_sde"])
def test_regularisers_are_refused(name: str):
    kinetic = REGULARISERS.get("kinetic")()
    with pytest.raises(ConfigError, match=rf"model={name} .* got regulariser=kinetic: use regulariser=\[\]"):
        model_of(name, regularisers={"kinetic": kinetic})


# --- the neural SDE --------------------------------------------------------------------------------


def test_the_pseudo_likelihood_is_that_of_euler_s_steps():
    model = model_of("neural_sde", spec(View.processes, (1,), mean=[0.0], std=[2.0]), diffusion_hidden=0)
    with torch.no_grad():
        model.drift = LinearField([[-0.7]])
        model.diffusion.bias.fill_(math.log(math.expm1(0.4)))
    ts = torch.tensor([0.0, 0.5, 0.7, 1.5], dtype=torch.float64)
    seen = torch.tensor([True, True, False, True])[:, None, None]
    x = torch.tensor([1.0, 0.8, 0.0, -0.2], dtype=torch.float64)[:, None, None] * 2
    found = model(ts, x, seen, Lesson(x, seen, 1.0)).objective
    z = [1.0, 0.8, -0.2]
    exact = 0.5 * z[0] ** 2 + 0.5 * math.log(2 * math.pi)  # N(0, 1) at the start
    for before, after, gap in ((z[0], z[1], 0.5), (z[1], z[2], 1.0)):
        variance = 0.16 * gap
        exact += 0.5 * (after - before + 0.7 * before * gap) ** 2 / variance + 0.5 * math.log(2 * math.pi * variance)
    assert float(found.detach()) == pytest.approx(exact)


def test_it_finds_drift_and_diffusion_of_exact_paths(tmp_path: Path):
    run = make_run(
        dataset="ornstein_uhlenbeck", model="neural_sde", solver="euler_maruyama", engine="torchsde",
        optimizer="adam", schedule="cosine", optimizer__lr=0.02, trainer__steps=200, trainer__eval_every=200,
        trainer__batch_size=200, trainer__log_every=100, dataset__noise=0.0, dataset__dropped=0.0, dataset__train=400,
        dataset__times=61, dataset__horizon=3.0, dataset__test=100, field__width=16,
    )  # fmt: skip
    trainer, experiment, _ = trainer_of(run, tmp_path)
    trainer.train()
    found = trainer.evaluate(experiment.splits.test)
    assert found["drift_error"] < 0.12
    assert found["diffusion_error"] < 0.05
    assert found["nll"] == pytest.approx(found["exact_nll"], abs=0.05)


def test_forecasts_begin_where_each_series_was_last_seen():
    model = model_of("neural_sde").eval()
    ts, values, seen = series(3)
    seen[:] = False
    for row, last in enumerate((0, 2, 4)):
        seen[: last + 1, row] = True
    values = torch.randn(values.shape, dtype=torch.float64) * seen
    paths = model.imagine(ts, values, seen, 40)
    assert paths.shape == (40, len(ts), 3, 2)
    for row, last in enumerate((0, 2, 4)):
        torch.testing.assert_close(paths[:, : last + 1, row], values[: last + 1, row].expand(40, -1, -1))
        assert bool((paths[:, last + 1 :, row].std(dim=0) > 0).all())


def test_data_that_are_observed_with_noise_are_refused():
    data = DATASETS.get("ornstein_uhlenbeck")(noise=0.1, train=3, val=1, test=1).spec(View.processes)
    with pytest.raises(ConfigError, match=r"observes with noise 0\.1: use dataset\.noise=0, or model=latent_sde"):
        model_of("neural_sde", data)
