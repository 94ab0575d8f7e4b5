"""`node-run figures`: pictures of finished runs, drawn again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure

from tests.cli.conftest import NodeRun


def kinds(run: Path) -> list[str]:
    return sorted(file.suffix for file in (run / "figures").iterdir())


@pytest.fixture(autouse=True)
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """The weights of every model that was drawn."""
    weights: list[dict[str, torch.Tensor]] = []

    def draw(model: torch.nn.Module, *_: Any) -> Any:
        weights.append({name: value.clone() for name, value in model.state_dict().items()})
        return iter([("trajectories", Figure())])

    monkeypatch.setattr("node_runner.runs.run.draw", draw)
    return weights


def test_all_runs_of_a_folder_are_drawn_with_their_best_weights(
    node_run: NodeRun, spiral: Path, drawn: list[dict[str, torch.Tensor]]
):
    other = Path(shutil.copytree(spiral, spiral.parent / "zweite"))
    done = node_run("figures", "--formats", "pdf,svg")
    assert done.code == 0, done.err
    assert done.out.splitlines() == [f"{spiral}/figures: trajectories", f"{other}/figures: trajectories"]
    assert kinds(spiral) == kinds(other) == [".pdf", ".svg"]
    best = torch.load(spiral / "checkpoints" / "best.pt", weights_only=True)["model"]
    assert len(drawn) == 2
    assert all(torch.equal(drawn[0][name], value) for name, value in best.items())


def test_formats_are_those_of_the_run_where_none_are_given(node_run: NodeRun, spiral: Path):
    assert node_run("figures", str(spiral), "--device", "cpu").code == 0
    assert kinds(spiral) == [".png"]


def test_a_run_that_cannot_be_drawn_is_named_and_the_others_are_drawn(node_run: NodeRun, spiral: Path):
    broken = Path(shutil.copytree(spiral, spiral.parent / "broken"))
    (broken / "checkpoints" / "best.pt").unlink()
    done = node_run("figures", "outputs")
    assert done.code == 1
    assert done.line.startswith(f"node-run: {broken}: ") and "best.pt" in done.line
    assert done.out.splitlines() == [f"{spiral}/figures: trajectories"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [(["nowhere"], "nowhere: no such folder"), (["outputs/empty"], "outputs/empty: holds no run")],
)
def test_no_run_is_a_mistake(node_run: NodeRun, spiral: Path, arguments: list[str], why: str):
    (spiral.parent / "empty").mkdir()
    done = node_run("figures", *arguments)
    assert done.code == 2
    assert done.line.startswith(f"node-run: {why}")


@pytest.mark.parametrize(("option", "value"), [("--formats", "gif"), ("--device", "tpu")])
def test_a_format_or_device_that_is_none_is_named(node_run: NodeRun, spiral: Path, option: str, value: str):
    done = node_run("figures", str(spiral), option, value)
    assert done.code != 0
    assert value in done.line and "Traceback" not in done.err
