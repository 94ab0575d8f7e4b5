"""A data set of the user's own: one Python file, one YAML, and nothing of this package is edited."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from node_runner.config import REGISTRIES
from node_runner.datasets import DATASETS
from node_runner.registry import plugin_packages
from tests.cli.conftest import SHORT, NodeRun


MODULE = '''
"""My laboratory."""

import numpy as np
import torch

from node_runner.datasets import DATASETS
from node_runner.settings import Positive
from node_runner.views import DataSpec, Splits, Trajectories, View


@DATASETS.register("decay", "what my pendulum did")
class Decay:
    """Exponential decay.

    Args:
        rate: per unit of time.
    """

    views = (View.trajectories,)

    def __init__(self, *, rate: Positive = 0.5) -> None:
        self.rate = rate

    def check(self) -> None:
        pass

    def part(self, seed: int) -> Trajectories:
        ts = torch.linspace(0, 2, 6, dtype=torch.float64)
        y0 = torch.rand(8, 1, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return Trajectories(ts, y0 * torch.exp(-self.rate * ts)[None, :, None])

    def splits(self, view: View) -> Splits[Trajectories]:
        return Splits(self.part(0), self.part(1), self.part(2))

    def spec(self, view: View) -> DataSpec:
        ys = self.part(0).ys.reshape(-1, 2)
        return DataSpec("decay", view, (2,), ys.mean(dim=0), ys.std(dim=0), labels=("a", "b"))
'''


@pytest.fixture
def laboratory(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with the module, its config, and registries that have not been read yet."""
    (here / "mylab.py").write_text(MODULE)
    (here / "conf" / "dataset").mkdir(parents=True)
    (here / "conf" / "dataset" / "mine.yaml").write_text(
        "# my pendulum\ndefaults: [/schema/dataset/decay@_here_, _self_]\nrate: 0.7\n"
    )
    monkeypatch.setenv("NODE_RUNNER_PLUGINS", "mylab")
    monkeypatch.syspath_prepend(here)
    kept = {registry: registry.__dict__.pop("signatures", None) for registry in REGISTRIES}
    plugin_packages.cache_clear()
    yield here
    for registry, signatures in kept.items():
        registry.__dict__.pop("signatures", None)
        if signatures is not None:
            registry.__dict__["signatures"] = signatures
    plugin_packages.cache_clear()
    sys.modules.pop("mylab", None)
    DATASETS._components.pop("decay", None)
    DATASETS._schemas.pop("decay", None)


def test_a_plug_in_works_from_end_to_end(node_run: NodeRun, laboratory: Path):
    listed = node_run("list", "dataset", "mine", "--config-dir", "conf").out
    assert "dataset.rate" in listed and "0.7" in listed and "per unit of time" in listed
    done = node_run("--config-dir", "conf", "dataset=mine", *SHORT, "hydra.run.dir=run")
    assert done.code == 0, done.err
    assert json.loads((laboratory / "run" / "result.json").read_text())["choices"]["dataset"] == "decay"
    assert node_run("evaluate", "run").out.splitlines()[-1] == "as recorded in result.json"
    assert node_run("sample", "run", "--start", "1,2").code == 0


def test_modules_of_the_working_folder_are_found_by_the_program(laboratory: Path, environment: dict[str, str]):
    done = subprocess.run(
        [sys.executable, "-m", "node_runner.cli.main", "list", "dataset", "mine", "--config-dir", "conf"],
        capture_output=True, text=True, cwd=laboratory, timeout=120,
        env={**environment, "NODE_RUNNER_PLUGINS": "mylab"},
    )  # fmt: skip
    assert "dataset.rate" in done.stdout


def test_a_component_that_is_not_registered_is_named(node_run: NodeRun, here: Path):
    (here / "conf" / "dataset").mkdir(parents=True)
    (here / "conf" / "dataset" / "mine.yaml").write_text("# my pendulum\ndefaults: [/schema/dataset/decay@_here_]\n")
    done = node_run("--config-dir", "conf", "dataset=mine")
    assert done.code == 2
    assert done.line.startswith("node-run: configs for dataset ask for the component 'decay', and none is registered")
    assert "NODE_RUNNER_PLUGINS" in done.line


def test_a_config_without_a_schema_is_refused(node_run: NodeRun, here: Path):
    (here / "conf" / "dataset").mkdir(parents=True)
    (here / "conf" / "dataset" / "mine.yaml").write_text("# my pendulum\nname: spiral\nnoise: lots\n")
    done = node_run("--config-dir", "conf", "dataset=mine")
    assert done.code == 2
    assert done.line.startswith("node-run: dataset: its settings have no schema; its YAML must begin with defaults:")
    assert not (here / "outputs").exists()
