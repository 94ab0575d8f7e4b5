"""Training on a device that is not the CPU: every model, each on a data set of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from node_runner.models import MODELS


DATASETS = {
    "spiral": ("node", "augmented", "greybox"), "oscillator": ("second_order",), "pendulum": ("hamiltonian",),
    "digits": ("resnet",), "two_moons": ("cnf", "flow_matching"), "diffusion": ("graph",), "bouncing_ball": ("event",),
    "irregular_spirals": ("latent", "rnn", "ode_rnn"), "turns": ("cde",),
}  # fmt: skip
PAIRS = [(dataset, model) for dataset, models in DATASETS.items() for model in models]
LEFT_OUT = ["latent_sde", "neural_sde"]
"""torchsde draws its noise from a generator on the device, and only a device of C++ has those."""

ROOT = Path(__file__).parents[1]


LEFT = """
import torch


def test_left():
    layer = torch.nn.Linear(2, 2).to("elsewhere")
    layer(torch.ones(1, 2, device="elsewhere")).sum().backward()
    assert layer.weight.grad.device.type == "elsewhere"
    layer(torch.ones(1, 2))
"""


def test_every_model_is_looked_at():
    assert sorted([*(model for _, model in PAIRS), *LEFT_OUT]) == sorted(MODELS.names())


@pytest.mark.slow
def test_every_model_trains_on_a_device_that_is_not_the_cpu_and_a_tensor_that_was_left_there_is_found(tmp_path: Path):
    (tmp_path / "test_left.py").write_text(LEFT)
    contract = "tests/contracts/test_pairs.py::test_every_pair_of_data_set_and_model_trains_or_is_refused"
    # In a process in which every run is on the other device.
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-c", "pyproject.toml", "-p", "tests.elsewhere", "-p", "no:cacheprovider",
            "-q", "--tb=short", *(f"{contract}[{dataset}-{model}]" for dataset, model in PAIRS),
            str(tmp_path / "test_left.py"),
        ],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert f"1 failed, {len(PAIRS)} passed" in done.stdout, done.stdout[-4000:]
    assert "RuntimeError: Expected all tensors to be on the same device" in done.stdout
