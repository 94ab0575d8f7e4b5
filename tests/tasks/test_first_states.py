"""Learned first states: the maximum of the likelihood, how much of the trajectories counts, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares

from node_runner.datasets.oscillator import Oscillator
from node_runner.errors import ConfigError
from node_runner.settings import FirstStates, TrainerConfig
from node_runner.tasks import TrajectoryRegression, make_task
from node_runner.tasks.techniques.first_states import LearnedFirstStates, mean_squares
from node_runner.views import Trajectories, View
from tests.models.builders import field_factory, make_model, spec
from tests.problems import differentiable, make_method
from tests.runs import make_run, trainer_of
from tests.tasks.models import Constant


LEARNED = TrainerConfig(window=None, first_states=FirstStates.learned)


def exact_fit(part: Trajectories) -> np.ndarray:
    """zeta and omega_n of greatest likelihood, by least squares on the closed form."""
    ts, ys = part.ts.numpy(), part.ys.numpy()
    size = np.ones(2)
    found = np.array([0.1, 2.0, *ys[:, 0].ravel()])

    def residual(p: np.ndarray) -> np.ndarray:
        return Oscillator(zeta=p[0], omega_n=p[1]).solution(ts, p[2:].reshape(-1, 2)).swapaxes(0, 1) - ys

    for _ in range(10):
        found = least_squares(lambda p, size=size: (residual(p) / size).ravel(), found).x
        size = np.sqrt((residual(found) ** 2).mean((0, 1)))
    return found[:2]


def test_parameters_are_those_of_greatest_likelihood():
    data = Oscillator(train=3, times=16, horizon=3.0, noise=0.05, long=0)
    part = data.splits(View.trajectories).train
    solve = differentiable(make_method("rk4", step_size=0.1), "off")
    start = {"zeta": 0.12, "omega_n": 1.95}
    model = make_model("greybox", data.spec(View.trajectories), field_factory(), solve=solve, pace=1.0, start=start)
    task = make_task(data.spec(View.trajectories), {}, LEARNED, model, part)
    _, batch = task.batches(part, LEARNED, 0, lambda step: 1.0)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=25, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = task.step(model, batch(0)).loss
        value.backward()
        return value

    optimizer.step(loss)
    output = model(part.ys[:, 0], part.ts)
    found = [float(output.scalars[name].detach()) for name in ("zeta", "omega_n")]
    assert found == pytest.approx(exact_fit(part), rel=1e-3)
    assert found[0] != pytest.approx(0.1, rel=5e-3), "the noise moves the estimate much more than the tolerance above"
    # Noise of 0.05, less the share that eight parameters fit.
    scalars = task.step(model, batch(0)).scalars
    expected = 0.05 * math.sqrt(1 - 8 / 96) / float(data.spec(View.trajectories).std.log().mean().exp())
    assert float(scalars["noise"]) == pytest.approx(expected, rel=0.25)


def test_the_loss_is_the_logarithm_of_the_error_on_each_axis_the_first_state_included():
    data = spec(View.trajectories, (2,), mean=[0.0, 0.0], std=[2.0, 1.0])
    part = Trajectories(torch.arange(3.0).double(), torch.zeros(4, 3, 2, dtype=torch.float64))
    model = Constant(2)
    task = make_task(data, {}, LEARNED, model, part)
    _, batch = task.batches(part, LEARNED, 0, lambda step: 1.0)
    with torch.no_grad():
        model.first_states.values.copy_(torch.tensor([0.1, 0.3]))
    expected = (math.log(0.1) + math.log(0.3)) / 2
    assert float(task.step(model, batch(0)).loss.detach()) == pytest.approx(expected, rel=1e-4)


def test_what_is_not_observed_does_not_count():
    error = torch.tensor([[[3.0], [torch.nan]], [[4.0], [5.0]]])
    mask = torch.tensor([[True, False], [True, False]])
    assert mean_squares(error, mask).tolist() == [12.5]


def test_a_curriculum_grows_from_the_start_of_the_trajectories():
    data = Oscillator(train=6, times=21, long=0)
    config = TrainerConfig(window=None, window_start=5, curriculum_share=0.5, batch_size=4)
    part = data.splits(View.trajectories).train
    task = LearnedFirstStates(TrajectoryRegression(data.spec(View.trajectories), {}), config, torch.nn.Module(), part)
    per_epoch, batch = task.batches(part, config, 0, lambda step: step / 10)
    assert per_epoch == 2
    assert [len(batch(step).ts) for step in (0, 2, 5, 9)] == [5, 11, 21, 21]
    drawn = [batch(step) for step in (0, 1)]
    assert sorted(torch.cat([each.rows for each in drawn]).tolist()) == [0, 1, 2, 3, 4, 5]
    for each in drawn:
        assert torch.equal(each.ys, part.ys[each.rows].transpose(0, 1)[: len(each.ts)])


def test_a_run_learns_and_keeps_them(tmp_path: Path):
    run = make_run(
        dataset="oscillator", dataset__noise=0.1, trainer__first_states=FirstStates.learned, trainer__warm_start=1,
        trainer__steps=3, solver="midpoint",
    )  # fmt: skip
    trainer, experiment, lines = trainer_of(run, tmp_path)
    trainer.train()
    assert float(experiment.model.first_states.values.detach().abs().sum()) > 0
    assert "first_states.values" in experiment.model.state_dict()
    assert len(lines.of("train/noise")) == 2


def test_what_has_no_first_states_or_other_ones_is_refused(tmp_path: Path):
    learned = {"trainer__first_states": FirstStates.learned}
    with pytest.raises(ConfigError, match=r"trainer\.window=5 cuts segments out of it: use trainer\.window=null"):
        trainer_of(make_run(trainer__window=5, **learned), tmp_path)
    with pytest.raises(ConfigError, match=r"only trajectories have first states; use trainer\.first_states=given"):
        trainer_of(make_run(dataset="two_moons", model="cnf", field="concatsquash", **learned), tmp_path)
    with pytest.raises(ConfigError, match=r"trainer\.input_noise=0.1 is added to given first states"):
        trainer_of(make_run(trainer__input_noise=0.1, **learned), tmp_path)
