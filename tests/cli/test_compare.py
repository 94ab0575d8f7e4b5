"""`node-run compare`: which choices differ, which run is best, what failed."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from node_runner.cli import journal
from node_runner.cli.choices import differing
from node_runner.cli.compare.compared import Compared
from node_runner.cli.compare.figure import factors, looks_of, room_for
from node_runner.cli.compare.loss_curve import loss_curve
from node_runner.cli.measures import Measures, measure
from node_runner.reporting.run_folder import RunFolder
from tests.cli.conftest import NodeRun


def change(run: Path, file: str, **values: Any) -> None:
    """Set keys such as `totals__steps` of a run's JSON or YAML file."""
    path = run / file
    content = yaml.safe_load(path.read_text())
    for key, value in values.items():
        *parents, last = key.split("__")
        place = content
        for parent in parents:
            place = place[parent]
        place[last] = value
    path.write_text(json.dumps(content) if file.endswith(".json") else yaml.safe_dump(content))


@pytest.fixture
def three(spiral: Path) -> list[Path]:
    """The run on the spiral, a better and dearer one at another tolerance, and one that failed."""
    runs = [spiral, spiral.with_name("tight"), spiral.with_name("broken")]
    change(spiral, "result.json", unused=[])  # as if its solver had a tolerance
    for copy in runs[1:]:
        shutil.copytree(spiral, copy)
    change(runs[1], "config.yaml", tolerance__rtol=1e-6)
    change(runs[1], "result.json", totals__nfe_forward=9000, totals__seconds=99.0)
    change(runs[2], "config.yaml", optimizer__lr=1e3)
    metrics = json.loads((runs[1] / "result.json").read_text())["metrics"]
    change(runs[1], "result.json", metrics={**metrics, "test/relative_rmse": 0.01})
    change(runs[2], "result.json", status="failed", reason="a step became too small", metrics={})
    change(runs[2], "result.json", totals__nfe_forward=0)
    return runs


def row(table: str, run: str) -> dict[str, str]:
    """The row of a run in a plain table, by column."""
    head, *lines = table.splitlines()[1:]
    line = next(line for line in lines if line.split()[-1] == run)
    return dict(zip(head.split(), line.split(), strict=True))


def test_a_table_shows_what_differs_quality_cost_and_reasons(node_run: NodeRun, three: list[Path]):
    done = node_run("compare", *map(str, three))
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0] == "outputs"
    assert lines[1].split()[:2] == ["rtol", "lr"]
    assert row(done.out, "tight")["test/relative_rmse"] == "0.01*"
    assert row(done.out, "tight")["nfe_forward"] == "1500"
    assert row(done.out, "spiral")["nfe_forward"] == "14*"
    assert row(done.out, "broken")["status"] == "failed" and row(done.out, "broken")["nfe_forward"] == "-"
    assert lines[-1] == "broken: failed: a step became too small"


def test_a_setting_that_plays_no_part_in_a_run_is_not_shown_as_its_choice(node_run: NodeRun, three: list[Path]):
    change(three[1], "result.json", unused=["tolerance"])
    table = node_run("compare", *map(str, three)).out
    assert row(table, "tight")["rtol"] == "-"
    assert row(table, "spiral")["rtol"] == "0.0001"


def test_a_run_that_an_accurate_solve_makes_another_of_is_named(node_run: NodeRun, three: list[Path], here: Path):
    metrics = json.loads((three[1] / "result.json").read_text())["metrics"]
    change(three[1], "result.json", metrics={**metrics, "val/relative_rmse": 0.01, "val_tight/relative_rmse": 0.2})
    done = node_run("compare", *map(str, three), "--plot", "figure.png")
    assert "tight: val/relative_rmse is 0.01, and 0.2 solved accurately: bound to its solver" in done.out.splitlines()
    assert row(done.out, "tight")["val_tight/relative_rmse"] == "0.2" and (here / "figure.png").exists()


@pytest.mark.parametrize("place", ["outputs", "outputs/*", "outputs/t*"])
def test_folders_and_patterns_stand_for_the_runs_in_them(node_run: NodeRun, three: list[Path], place: str):
    runs = {record["run"] for record in json.loads(node_run("compare", place, "--json").out)}
    assert runs == ({"outputs/tight"} if "t*" in place else {str(run) for run in three})


def test_what_a_sweep_keeps_beside_its_runs_is_left_out_of_what_a_shell_makes_of_a_pattern(
    node_run: NodeRun, three: list[Path]
):
    beside = [three[0].parent / journal.FILE, three[0].parent / "comparison.png"]
    for file in beside:
        file.touch()
    done = node_run("compare", *map(str, (*three, *beside)))
    assert done.code == 0 and "tight" in done.out
    for files in (beside[1:], beside):
        assert "holds no run" in node_run("compare", *map(str, files)).line


def test_runs_on_different_data_are_not_held_against_each_other(node_run: NodeRun, three: list[Path]):
    assert "*" in node_run("compare", *map(str, three)).out
    change(three[1], "config.yaml", dataset__name="oscillator")
    assert "*" not in node_run("compare", *map(str, three)).out


def test_hydra_s_own_copy_of_a_configuration_is_no_run(node_run: NodeRun, spiral: Path):
    (spiral / ".hydra").mkdir()
    shutil.copy(spiral / "config.yaml", spiral / ".hydra" / "config.yaml")
    assert len(json.loads(node_run("compare", "outputs", "--json").out)) == 1


def test_the_table_can_be_kept_and_drawn(node_run: NodeRun, three: list[Path], here: Path):
    done = node_run("compare", "outputs", "--csv", "new/table.csv", "--plot", "new/losses.png")
    assert done.code == 0
    with open("new/table.csv", newline="") as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    assert rows["outputs/tight"]["tolerance.rtol"] == "1e-06"
    assert rows["outputs/broken"]["reason"] == "a step became too small"
    assert (here / "new" / "losses.png").read_bytes().startswith(b"\x89PNG")


def of(*choices: dict[str, Any]) -> list[Compared]:
    """Runs that differ in these choices."""
    done = Measures("completed", "", 10)
    return [Compared(f"run{number}", RunFolder(Path()), chosen, done) for number, chosen in enumerate(choices)]


def test_costs_that_are_nearly_one_do_not_fill_their_axis():
    assert room_for([20.0, 19.999]) == (pytest.approx(18, rel=1e-3), 22.0)
    assert room_for([20.0, 40.0]) is None
    assert room_for([0.0, 0.0]) is None and room_for([]) is None


def test_settings_that_change_together_are_one_factor_of_a_figure_and_seeds_are_none():
    runs = of(*(
        {"solver": solver, "tolerance.rtol": rtol, "tolerance.atol": atol, "seed": seed}
        for solver in ("dopri5", "bosh3") for rtol, atol in ((1e-3, 1e-4), (None, None)) for seed in (0, 1)
    ))  # fmt: skip
    solvers, tolerances = factors(runs)
    assert solvers == ["solver=dopri5"] * 4 + ["solver=bosh3"] * 4
    assert tolerances == (["rtol=0.001, atol=0.0001"] * 2 + ["no rtol, no atol"] * 2) * 2
    looks, legend = looks_of([solvers, tolerances])
    assert [looks.index(look) for look in looks] == [0, 0, 2, 2, 4, 4, 6, 6]
    assert [entry.get_label() for entry in legend] == [*dict.fromkeys(solvers), *dict.fromkeys(tolerances)]


def test_three_factors_are_taken_as_one_and_seeds_as_one_where_nothing_else_differs():
    runs = of({"a": 1, "b": 1, "c": 1}, {"a": 2, "b": 1, "c": 1}, {"a": 1, "b": 2, "c": 1}, {"a": 1, "b": 1, "c": 2})
    assert factors(runs) == [["a=1, b=1, c=1", "a=2, b=1, c=1", "a=1, b=2, c=1", "a=1, b=1, c=2"]]
    assert factors(of({"seed": 3}, {"seed": 4})) == [["seed=3", "seed=4"]]
    assert factors(of({}, {})) == [["run0", "run1"]]


def test_a_picture_of_no_format_is_refused(node_run: NodeRun, three: list[Path]):
    done = node_run("compare", "outputs", "--plot", "losses.xyz")
    assert done.code == 2
    assert done.last.startswith("node-run: losses.xyz: expected an ending of an image format")


def test_a_run_without_a_result_is_measured_as_far_as_it_came(spiral: Path):
    (spiral / "result.json").unlink()
    found = measure(RunFolder(spiral))
    assert (found.status, found.steps) == ("no result", 6)
    assert found.quality["val/loss"] > 0 and found.costs["nfe_forward"] == 14
    assert f"node-run resume {spiral}" in found.reason


def test_refused_jobs_of_a_sweep_are_named(node_run: NodeRun, spiral: Path):
    for number, rtol in enumerate(("1", "-1")):
        status = "refused" if rtol == "-1" else "done"
        journal.note(Path("outputs"), journal.Job(number, [f"tolerance.rtol={rtol}", "seed=1"], "x", status, "not so"))
    assert node_run("compare", "outputs").out.splitlines()[-1] == "tolerance.rtol=-1: refused: not so"


def write(folder: Path, **configs: dict[str, Any]) -> list[Path]:
    files = []
    for name, config in configs.items():
        files.append(folder / f"{name}.yaml")
        files[-1].write_text(yaml.safe_dump(config, sort_keys=False))
    return files


def test_a_component_stands_for_its_settings(here: Path):
    files = write(
        here,
        a={"optimizer": {"name": "adam", "lr": 0.1}, "solver": {"name": "rk4", "step_size": 1}, "sweep": "x"},
        b={"optimizer": {"name": "sgd", "lr": 0.2}, "solver": {"name": "rk4", "step_size": 1}, "sweep": "y"},
    )
    assert differing(files) == [{"optimizer": "adam"}, {"optimizer": "sgd"}]


def test_settings_that_differ_within_a_component_are_choices(here: Path):
    files = write(
        here,
        a={"optimizer": {"name": "adam", "lr": 0.1}, "trainer": {"steps": 5}, "start": [[1, 2]]},
        b={"optimizer": {"name": "sgd", "lr": 0.2}, "trainer": {"steps": 5}, "start": [[1, 2]]},
        c={"optimizer": {"name": "adam", "lr": 0.3}, "trainer": {"steps": 6}, "start": [[1, 3]]},
    )
    keys = ["optimizer", "optimizer.lr", "trainer.steps", "start"]
    assert [list(chosen) for chosen in differing(files)] == [keys] * 3


def test_one_run_differs_from_nothing(here: Path):
    assert differing(write(here, a={"optimizer": {"name": "adam", "lr": 0.1}})) == [{}]


def test_a_curve_adds_up_what_training_cost(here: Path):
    lines = [
        {"step": 10, "time/step_ms": 100.0, "nfe/forward": 5.0, "nfe/backward": 1.0},
        {"step": 10, "val/loss": 3.0},
        {"step": 15, "time/step_ms": 200.0, "nfe/forward": 7.0, "nfe/backward": 3.0},
        {"step": 15, "val/loss": 2.0},
        {"step": 15, "test/loss": 1.0},
    ]
    (here / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert loss_curve(RunFolder(here)) == [(10, 60.0, 1.0, 3.0), (15, 110.0, 2.0, 2.0)]
