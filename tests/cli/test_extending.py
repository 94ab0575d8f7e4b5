"""The components that EXTENDING.md shows in full, outside of this package and together in one run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from node_runner.cli.list.command import registries


TEXT = (Path(__file__).resolve().parents[2] / "EXTENDING.md").read_text(encoding="utf-8")
SHOWN = dict(re.findall(r"`node_runner/(\w+/\w+)\.py`:\n\n```python\n(.*?)```", TEXT, re.DOTALL))
"""Source by folder and name."""
CHOSEN = ("dataset=duffing", "model=residual_node", "field=fourier", "regulariser=[bounded]", "solver=dopri5")


@pytest.fixture
def extended(here: Path) -> Path:
    """A working folder with a package of all that is shown, and its configs."""
    groups = {registry.package.rpartition(".")[2]: group for group, registry in registries().items()}
    (here / "mine").mkdir()
    (here / "mine" / "__init__.py").touch()
    for place, source in SHOWN.items():
        folder, name = place.split("/")
        group = groups[folder]
        (here / "mine" / f"{name}.py").write_text(source, encoding="utf-8")
        (here / "conf" / group).mkdir(parents=True)
        head = f"# @package regulariser.{name}\n" if group == "regulariser" else ""
        (here / "conf" / group / f"{name}.yaml").write_text(
            f"{head}defaults: [/schema/{group}/{name}@_here_, _self_]\n"
        )
    return here


def node_run(folder: Path, environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-m", "node_runner.cli.main", *arguments],
        capture_output=True, text=True, cwd=folder, timeout=120, env={**environment, "NODE_RUNNER_PLUGINS": "mine"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_one_of_each_kind_is_shown():
    assert {place.split("/")[0] for place in SHOWN} == {"datasets", "fields", "models", "solvers", "regularisers"}


@pytest.mark.slow
def test_they_work_together(extended: Path, environment: dict[str, str]):
    settings = ("dataset.train=4", "dataset.times=20", "trainer.window=5", "debug=fast", "hydra.run.dir=run")
    node_run(extended, environment, "--config-dir", "conf", *CHOSEN, *settings)
    result = json.loads((extended / "run" / "result.json").read_text())
    assert result["status"] == "completed"
    assert (result["choices"]["dataset"], result["choices"]["field"]) == ("duffing", "fourier")
    assert "regulariser/bounded" in result["metrics"]


def test_the_method_is_one_that_engines_know(extended: Path, environment: dict[str, str]):
    assert "solver.step_size" in node_run(extended, environment, "list", "solver", "ralston", "--config-dir", "conf")
    shown = node_run(extended, environment, "--config-dir", "conf", "solver=ralston", "--cfg", "job")
    assert "name: ralston" in shown
