"""The run of a sweep to go on with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from node_runner.cli.compare import figure as comparison_figure
from node_runner.cli.compare.compared import Compared
from node_runner.cli.compare.figure import draw_comparison
from node_runner.cli.compare.loss_curve import Validated
from node_runner.cli.compare.winner import winner
from node_runner.cli.measures import Measures
from node_runner.reporting.run_folder import RunFolder
from node_runner.runs.trust import Apart


def run(name: str, loss: float, *, status: str = "completed", apart: Apart | None = None, **choices: Any) -> Compared:
    found = Measures(status, "", 10, {"val/loss": loss, "test/mse": loss}, {"saved_mb": loss, "ms_step": 1.0})
    found.apart = apart
    return Compared(name, RunFolder(Path(name)), choices, found)


RUNS = [
    run("a", 1.0, solver="rk4", seed=0), run("b", 9.0, solver="rk4", seed=1), run("c", 8.0, solver="rk4", seed=2),
    run("d", 4.0, solver="tsit5", seed=0), run("e", 3.0, solver="tsit5", seed=1), run("f", 7.0, solver="tsit5", seed=2),
]  # fmt: skip


def test_the_median_over_seeds_decides_and_not_the_luckiest_run():
    found = winner(RUNS)
    assert found is not None and (found[0].name, found[1]) == ("d", 3)


def test_a_run_that_is_bound_to_its_solver_or_has_not_completed_does_not_win():
    bound = Apart("mse", 1.0, 9.0)
    runs = [run("a", 1.0, solver="euler", apart=bound), run("b", 2.0, solver="rk4"), run("c", 3.0, solver="tsit5")]
    found = winner([*runs, run("d", 0.5, solver="heun2", status="diverged")])
    assert found is not None and found[0].name == "b"


@pytest.mark.parametrize(
    "runs", [[run("a", 1.0, seed=0), run("b", 2.0, seed=1)], [run("a", 1.0, dataset="x"), run("b", 2.0, dataset="y")]]
)
def test_there_is_none_among_seeds_and_none_on_different_data(runs: list[Compared]):
    assert winner(runs) is None


def test_seeds_are_a_bar_through_their_median(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(comparison_figure, "loss_curve", lambda folder: [Validated(1, 1.0, 1.0, 1.0)])
    drawn = []
    monkeypatch.setattr(comparison_figure, "write_figure", lambda figure, file: drawn.append(figure))
    draw_comparison(RUNS, tmp_path / "c.png")
    memory = drawn[0].axes[3]
    bars = sorted(tuple(bar.get_segments()[0][:, 1]) for bar in memory.collections)
    assert bars == [(1.0, 9.0), (3.0, 7.0)]
    assert sorted(line.get_ydata()[0] for line in memory.lines if line.get_marker() == "o") == [4.0, 8.0]
    assert drawn[0].legends[0].get_texts()[-1].get_text() == "range over seeds"
