import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from node_runner.engines.compiler import compiler


SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
MEASURING = [
    "bench_overhead", "bench_step", "bench_adjoint", "bench_solvers", "bench_engines", "bench_memory",
    "bench_textbook", "bench_per_sample", "bench_work_precision", "bench_step_sizes", "bench_drop_in",
    "gpu_check",
]  # fmt: skip


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """A program's own folder comes first in the path, and its threads are its own."""
    monkeypatch.syspath_prepend(SCRIPTS)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def main(name, *arguments):
    """Exit code of scripts/NAME.py with `arguments`, run in this process."""
    return runpy.run_path(str(SCRIPTS / f"{name}.py"))["main"]([str(argument) for argument in arguments])


def recorded(folder):
    """The README, the content of results.json, and the names of the figures that a benchmark left."""
    figures = sorted(path.name for path in folder.glob("*.png"))
    return (folder / "README.md").read_text(), json.loads((folder / "results.json").read_text()), figures


def check_record(folder, name):
    readme, content, figures = recorded(folder)
    assert "its numbers mean nothing" in readme
    assert content["question"] in readme
    assert content["command"].startswith(f"python scripts/{name}.py --quick") and content["command"] in readme
    for heading in ("**Method.**", "## Reading", "## Limits", "## Where it was measured"):
        assert heading in readme, heading
    environment = content["environment"]
    assert {"device_name", "cores", "threads", "packages", "git", "load_before"} <= environment.keys()
    assert environment["packages"]["torch"] in readme and content["date"] in readme
    assert figures and all(f"({figure})" in readme for figure in figures)
    assert content["results"]
    return content["results"]


@pytest.mark.parametrize("name", MEASURING)
def test_help_shows_the_question_and_a_command_line(name, capsys):
    with pytest.raises(SystemExit, match="0"):
        main(name, "--help")
    shown = capsys.readouterr().out
    first = shown.split("\n\n")[1]
    assert first.endswith(("?", "."))
    assert f"python scripts/{name}.py" in shown


@pytest.mark.slow
def test_overhead_of_loops_that_did_the_same_work(tmp_path):
    arguments = ("--quick", "--problems", "spiral", "two_moons", "--adjoints", "on", "--out", tmp_path)
    assert main("bench_overhead", *arguments) == 0
    results = check_record(tmp_path, "bench_overhead")
    assert [(r["problem"], r["adjoint"]) for r in results] == [("spiral", "on"), ("two_moons", "on")]
    for result in results:
        assert result["loss_bare"] == pytest.approx(result["loss_runner"], rel=1e-4)
        assert len(result["ratios"]) == 1 and result["ratios"][0] > 0


@pytest.mark.slow
def test_a_residual_network_is_held_against_the_flow_with_its_weights(tmp_path):
    assert main("bench_step_sizes", "--quick", "--out", tmp_path) == 0
    results = check_record(tmp_path, "bench_step_sizes")
    assert list(results) == ["oscillator", "annuli"]
    for points in results.values():
        assert len(points) == 4 * 3 * 3
        assert all(point["value"] >= 0 for point in points)


@pytest.mark.slow
def test_a_step_and_its_solve_are_timed_in_turns(tmp_path):
    assert main("bench_step", "--quick", "--problems", "spiral", "two_moons", "--out", tmp_path) == 0
    results = check_record(tmp_path, "bench_step")
    assert [result["problem"] for result in results] == ["spiral", "two_moons"]
    assert all(len(result["step"]) == len(result["solve"]) == 2 for result in results)
    assert all(min(*result["step"], *result["solve"]) > 0 for result in results)


@pytest.mark.slow
@pytest.mark.skipif(compiler() is None, reason="no C++ compiler")
def test_the_changed_import_trains_the_demo_as_torchdiffeq_does(tmp_path):
    assert main("bench_drop_in", "--quick", "--out", tmp_path) == 0
    results = check_record(tmp_path, "bench_drop_in")
    for name in ("odeint", "odeint_adjoint"):
        theirs, ours = (results[f"{module}.{name}"][0] for module in ("torchdiffeq", "node_runner"))
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)
        assert ours["error"] == pytest.approx(theirs["error"], rel=1e-3)


def test_overhead_refuses_to_compare_loops_that_did_other_work(tmp_path, monkeypatch):
    import bench_overhead

    honest = bench_overhead.run_trainer

    def cheat(config):
        config.optimizer.lr = 0.5
        return honest(config)

    monkeypatch.setattr(bench_overhead, "run_trainer", cheat)
    with pytest.raises(SystemExit, match="spiral, adjoint=off: the loops did different work"):
        bench_overhead.main(["--quick", "--problems", "spiral", "--adjoints", "off", "--out", str(tmp_path)])
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_memory_of_every_engine_is_measured(tmp_path: Path):
    assert main("bench_memory", "--quick", "--out", tmp_path) == 0
    results = check_record(tmp_path, "bench_memory")
    names = {row["contestant"] for row in results["vector-block"]}
    assert {"torchdiffeq", "torchdiffeq, adjoint"} <= names
    assert all(row["peak, MiB"] >= 0 for row in results["vector-block"])


@pytest.mark.slow
def test_memory_is_measured_in_a_process_of_its_own():
    import bench_memory

    assert bench_memory.apart("vector-block", "torchdiffeq, adjoint", ["native"], 1) >= 0


@pytest.mark.slow
def test_adjoint_memory_grows_with_off_alone(tmp_path):
    assert main("bench_adjoint", "--quick", "--out", tmp_path) == 0
    results = check_record(tmp_path, "bench_adjoint")
    saved = {(r["solver"], r["adjoint"], r["steps"]): r["saved_mb"] for r in results}
    assert saved["rk4", "off", 8] == pytest.approx(2 * saved["rk4", "off", 4], rel=0.1)
    assert saved["rk4", "on", 8] == saved["rk4", "on", 4] < saved["rk4", "off", 4] / 4
    gradients = [r["gradient"] for r in results if r["solver"] == "rk4" and r["adjoint"] == "on"]
    assert gradients[1] < gradients[0] / 8  # by a solver of order 4: the steps were halved


def test_adjoint_measures_one_point_for_a_process_of_its_own(capsys):
    import bench_adjoint

    point = bench_adjoint.Point("rk4", "off", 4, 4, 8, 1e-5, 1e-6, 1, "cpu", "float32", 1)
    assert main("bench_adjoint", "--point", json.dumps(vars(point))) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["steps"] == 4 and result["nfe_forward"] == 16 and result["saved_mb"] > 0


@pytest.mark.slow
def test_solvers_meet_their_orders(tmp_path):
    assert main("bench_solvers", "--quick", "--problems", "oscillator", "--out", tmp_path) == 0
    lines = check_record(tmp_path, "bench_solvers")["oscillator"]
    for solver, order in (("euler", 1), ("midpoint", 2), ("heun3", 3), ("rk4", 4)):
        coarse, fine = (point["error"] for point in lines[solver]["points"][-2:])
        assert 2 ** (order - 0.7) < coarse / fine < 2 ** (order + 1.5), solver
    assert all(point["nfe"] <= 200 for line in lines.values() for point in line["points"])
    assert "scipy DOP853" in lines and "fixed_adams" not in lines


@pytest.mark.slow
def test_engines_are_measured_beside_torchdiffeq_with_the_error_of_each_gradient(tmp_path):
    arguments = ["--quick", "--no-peers", "--engines", "native", "--problems", "vector-block", "--out", tmp_path]
    assert main("bench_engines", *arguments) == 0
    (rows,) = check_record(tmp_path, "bench_engines").values()
    assert [row["contestant"] for row in rows[:2]] == ["torchdiffeq", "torchdiffeq, adjoint"]
    assert rows[0]["x"] == 1
    for row in rows:
        assert row["ms"] > 0
        assert 0 < row["gradient error"] < 0.1
    discrete = [row for row in rows if row["contestant"].endswith(("off", "checkpoint"))]
    assert all(row["from torchdiffeq's"] < 1e-3 for row in discrete)


@pytest.mark.slow
def test_steps_of_ones_own_are_as_many_as_each_trajectory_needs(tmp_path):
    arguments = ["--quick", "--no-peers", "--problems", "one-fast", "--out", tmp_path]
    assert main("bench_per_sample", *arguments) == 0
    (rows,) = check_record(tmp_path, "bench_per_sample").values()
    by_name = {row["contestant"]: row for row in rows}
    shared, own = by_name["native, shared"], by_name["native, per_sample"]
    assert own["evaluations, mean"] < shared["evaluations, mean"] < own["evaluations, largest"]
    assert own["worst error"] < shared["worst error"] / 2


def test_problems_begin_without_a_gradient():
    import engine_problems

    for name in ("one-spiral", "vector-block", "flow-exact"):
        assert all(parameter.grad is None for parameter in engine_problems.PROBLEMS[name]().field.parameters()), name


@pytest.mark.slow
def test_tighter_tolerances_give_better_gradients(tmp_path):
    arguments = ["--quick", "--no-peers", "--engines", "native", "--problems", "vector-block", "--out", tmp_path]
    assert main("bench_work_precision", *arguments) == 0
    (rows,) = check_record(tmp_path, "bench_work_precision").values()
    for library in ("torchdiffeq", "native"):
        errors = [row["gradient error"] for row in rows if row["contestant"] == library]
        assert len(errors) == 5 and errors == sorted(errors, reverse=True)


@pytest.mark.slow
def test_the_textbook_run_is_timed_from_start_to_exit(tmp_path, monkeypatch):
    """Its programs are run in this process, where torch is imported already."""
    import bench_textbook

    from node_runner.cli.main import app

    def timed(command, environment):
        assert command[:3] == [sys.executable, "-m", "node_runner.cli.main"]
        monkeypatch.setenv("NODE_RUNNER_CACHE", environment["NODE_RUNNER_CACHE"])
        with pytest.raises(SystemExit) as end:
            app(command[3:], prog_name="node-run")
        assert not end.value.code
        return 1.0

    assert bench_textbook.timed([sys.executable, "-c", "import time; time.sleep(0.1)"], dict(os.environ)) >= 0.1
    monkeypatch.setattr(bench_textbook, "timed", timed)
    monkeypatch.setattr("node_runner.runs.run.draw", lambda *_: iter(()))
    assert bench_textbook.main(["--quick", "--out", str(tmp_path)]) == 0
    results = check_record(tmp_path, "bench_textbook")
    assert len(results["seconds"]["node-run, again"]) == 1
    assert results["training"][0] > 0


@pytest.mark.slow
def test_gpu_check_passes_on_the_cpu_against_itself(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("node_runner.runs.run.draw", lambda *_: iter(()))  # of the runs, not of the check
    assert main("gpu_check", "--quick", "--device", "cpu", "--out", tmp_path) == 0, capsys.readouterr().out
    results = check_record(tmp_path, "gpu_check")
    assert {key: part["status"] for key, part in results.items()} == {
        "a": "passed", "b": "passed", "c": "passed", "d": "passed", "e": "left out",
    }  # fmt: skip
    assert len(results["a"]["rows"]) == 3
    assert {row["result"] for row in results["c"]["rows"]} == {"same", "refused"}


def test_gpu_check_reports_a_part_that_breaks(tmp_path, monkeypatch, capsys):
    import gpu_check

    def broken(options):
        raise RuntimeError("out of order")

    monkeypatch.setitem(gpu_check.PARTS, "b", ("(b) Memory", broken))
    arguments = ["--quick", "--device", "cpu", "--parts", "b", "e", "--out", str(tmp_path)]
    assert gpu_check.main(arguments) == 1
    readme, content, _ = recorded(tmp_path)
    assert "RuntimeError: out of order" in readme and content["results"]["b"]["status"] == "failed"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA GPU here")
def test_gpu_check_says_in_one_line_that_there_is_no_gpu(tmp_path, capsys):
    assert main("gpu_check", "--out", tmp_path / "out") == 1
    shown = capsys.readouterr()
    assert shown.out == "" and len(shown.err.splitlines()) == 1 and "no CUDA GPU" in shown.err
    assert not (tmp_path / "out").exists()


def test_noise_is_the_same_wherever_it_is_wanted():
    import gpu_training

    x = torch.zeros(3, 2, dtype=torch.float64)
    torch.manual_seed(1)
    plain = torch.rand_like(x), torch.randn_like(x), torch.randint(0, 2, (3,), device=x.device)
    torch.manual_seed(1)
    with gpu_training.noise_of_the_cpu():
        drawn = torch.rand_like(x), torch.randn_like(x), torch.randint(0, 2, (3,), device=x.device)
    assert all(torch.equal(a, b) for a, b in zip(plain, drawn, strict=True))


@pytest.mark.slow
def test_a_script_runs_as_a_program(tmp_path):
    """As `make` calls it: from another folder, with its neighbours importable."""
    done = subprocess.run(
        [sys.executable, SCRIPTS / "bench_solvers.py", "--help"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(SCRIPTS.parent)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "--max-nfe" in done.stdout
