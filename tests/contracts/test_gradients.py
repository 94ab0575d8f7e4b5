"""The gradient of what each family is trained on, as the trainer computes it, against finite differences in float64."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from node_runner.datasets import DATASETS
from node_runner.models import MODELS
from tests.contracts.test_datasets import declared_views
from tests.contracts.test_pairs import ASKS_MORE, STOCHASTIC
from tests.runs import make_run, trainer_of


LEARNS_FROM = {
    "cde": "turns", "cnf": "two_moons", "event": "bouncing_ball", "flow_matching": "two_moons", "graph": "diffusion",
    "greybox": "oscillator", "hamiltonian": "mass_spring", "latent": "irregular_oscillations",
    "latent_sde": "ornstein_uhlenbeck", "neural_sde": "ornstein_uhlenbeck", "ode_rnn": "irregular_oscillations",
    "rnn": "irregular_oscillations", "second_order": "oscillator",
}  # fmt: skip
"""What a family is tried on that does not learn from the spiral."""

WITHOUT_A_CONTINUOUS_ADJOINT = {"resnet", "rnn", "flow_matching", *STOCHASTIC}
"""No solve in training, or one whose adjoint has noise that finite differences cannot see past (tested apart)."""

SETTINGS = {
    "neural_sde": {"dataset__noise": 0.0},
    "latent": {"model__agreement": 1.0, "model__cut": 0.5},
    "ode_rnn": {"dataset__times": 6},
    # Gaps and noise make the path rough, and the adjoint as wrong as its steps are long.
    "cde": {"dataset__times": 161, "dataset__noise": 0.0, "dataset__dropped": 0.0},
    "greybox": {"model__network": True},
    "flow_matching": {"field": "concatsquash"},
}

CASES = [(name, adjoint) for name in MODELS.names() for adjoint in ("off", "on")
         if adjoint == "off" or name not in WITHOUT_A_CONTINUOUS_ADJOINT]  # fmt: skip


@pytest.mark.parametrize(("name", "adjoint"), CASES, ids=[f"{name}-{adjoint}" for name, adjoint in CASES])
def test_the_gradient_of_the_training_loss_is_that_of_finite_differences(name: str, adjoint: str, tmp_path: Path):
    if name in STOCHASTIC:
        pytest.importorskip("torchsde", reason="torchsde is not installed: pip install 'node-runner[sde]'")
        solver = {"solver": "euler_maruyama", "engine": "torchsde"}
    elif adjoint == "off" or name == "cde":  # steps that do not move with the parameters, nor stumble over joints
        solver = {"solver": "rk4"}
    else:
        solver = {"solver": "dopri5", "tolerance__rtol": 1e-9, "tolerance__atol": 1e-9}
    run = make_run(dataset=LEARNS_FROM.get(name, "spiral"), model=name, adjoint=adjoint, **solver,
                   **SETTINGS.get(name, {}))  # fmt: skip
    trainer, experiment, _ = trainer_of(run, tmp_path)
    model, batch = experiment.model.train(), trainer.batch(1)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    generator = torch.Generator().manual_seed(0)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]

    def loss() -> torch.Tensor:
        torch.manual_seed(0)  # the same draws, whatever the weights
        return experiment.task.step(model, batch).loss

    gradients = torch.autograd.grad(loss(), parameters, allow_unused=True)
    computed = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True) if g is not None)
    ends = []
    with torch.no_grad():
        for step in (1e-6, -2e-6):
            for parameter, along in zip(parameters, direction, strict=True):
                parameter += step * along
            ends.append(float(loss()))
    assert computed == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-6 if adjoint == "off" else 1e-4, abs=1e-7)
    assert abs(computed) > 1e-6


def test_every_family_is_tried_on_data_that_it_learns_from():
    assert set(LEARNS_FROM) <= set(MODELS.names())
    for name in MODELS.names():
        dataset = LEARNS_FROM.get(name, "spiral")
        assert set(declared_views(dataset)) & set(MODELS.get(name).views)
        assert name == "neural_sde" or ASKS_MORE.get(name, lambda data: True)(DATASETS.build(
            make_run(dataset=dataset).dataset))  # fmt: skip
