"""Multiple shooting: segments that meet, learned first states, and the refusal of what does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from node_runner.errors import ConfigError
from node_runner.settings import TrainerConfig
from node_runner.tasks import TrajectoryRegression
from node_runner.tasks.techniques.shooting import Shooting, places
from node_runner.views import DataSpec, Trajectories, View
from tests.models.builders import LinearField, make_model, spec
from tests.runs import make_run, trainer_of


CONFIG = TrainerConfig(window=None, batch_size=None, shooting=4)


def exact(rate: float = -0.5, times: int = 10) -> tuple[DataSpec, Trajectories]:
    """y0 exp(rate t) from three first states."""
    ts = torch.linspace(0, 2, times, dtype=torch.float64)
    ys = torch.tensor([[1.0], [-2.0], [0.5]], dtype=torch.float64)[:, None] * (rate * ts).exp()[:, None]
    return spec(View.trajectories, (1,), mean=[0.3], std=[2.0]), Trajectories(ts, ys)


def step_of(rate: float) -> tuple[dict[str, Tensor], torch.nn.Module, Tensor]:
    data, part = exact()
    model = make_model("node", data, lambda shape: LinearField([[rate]], [rate * 0.15]))
    task = Shooting(TrajectoryRegression(data, {}), data, CONFIG, model, part)
    _, batch = task.batches(part, CONFIG, 0, lambda step: 1.0)
    out = task.step(model, batch(0))
    return out.scalars, model, out.loss


def test_segments_meet_in_their_ends():
    found = places(exact()[1], 4)
    assert found.tolist() == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]


def test_the_true_field_from_the_true_states_leaves_no_gap_and_no_loss():
    # In standardised states z the field is rate (z + mean / std).
    scalars, model, loss = step_of(-0.5)
    assert float(scalars["continuity"]) < 1e-7
    assert float(loss.detach()) < 1e-12
    assert model.first_states.values.shape == (3, 3, 1)


def test_a_wrong_field_leaves_the_gaps_that_it_should():
    scalars, _, loss = step_of(0.0)
    _, part = exact()
    gap = (part.ys[:, 3::3] - part.ys[:, :-3:3])[:, :-1] / 2.0
    assert float(scalars["continuity"]) == pytest.approx(float(gap.square().mean().sqrt()), rel=1e-9)
    assert float(loss.detach()) == pytest.approx(float(scalars["loss"] + scalars["continuity"] ** 2), rel=1e-9)


def test_first_states_are_learned_and_come_back_with_the_checkpoint(tmp_path: Path):
    run = make_run(dataset="spiral", trainer__shooting=20, dataset__times=20)
    trainer, experiment, lines = trainer_of(run, tmp_path)
    before = experiment.model.first_states.values.detach().clone()
    trainer.train()
    assert not torch.equal(before, experiment.model.first_states.values)
    assert len(lines.of("train/continuity")) == 2


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"shooting": 5}, "use 2 or 4"),
        ({"window": 4}, "use trainer.window=null"),
        ({"window_start": 4}, "use trainer.window_start=null"),
        ({"input_noise": 0.1}, "use one of the two"),
    ],
)
def test_lengths_that_do_not_fit_are_refused(settings: dict[str, float], words: str):
    data, part = exact()
    config = TrainerConfig(**{"window": None, "shooting": 4, **settings})
    with pytest.raises(ConfigError, match=words):
        Shooting(TrajectoryRegression(data, {}), data, config, torch.nn.Module(), part)


def test_uneven_times_and_gaps_are_refused():
    _, part = exact()
    with pytest.raises(ConfigError, match="evenly spaced"):
        places(Trajectories(part.ts**2, part.ys), 4)
    with pytest.raises(ConfigError, match="without gaps"):
        places(Trajectories(part.ts, part.ys, torch.ones(3, 10, dtype=torch.bool)), 4)
