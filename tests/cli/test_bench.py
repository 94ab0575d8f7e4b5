"""`node-run bench`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from node_runner.cli import bench
from node_runner.cli.bench import Measured, chosen, recommendation, table, with_engine
from node_runner.cli.tables import Cell
from node_runner.engines import ENGINES
from node_runner.engines.compiler import compiler
from tests.cli.conftest import SPIRAL, NodeRun
from tests.runs import make_run


@pytest.fixture(autouse=True)
def short_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "ROUNDS", 2)
    monkeypatch.setattr(bench, "ROUND_S", 0.0)


def test_every_engine_is_measured_against_the_reference_and_one_is_recommended(node_run: NodeRun, here: Path):
    done = node_run("bench", *SPIRAL, "--engine", "native", "--engine", "torchdiffeq", "--save", "figures/bench.json")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[1].startswith("torchdiffeq") and lines[1].endswith("reference")
    assert lines[-1].startswith("recommended: engine=")
    assert "for the 6 steps of this run" in lines[-1]
    assert "spiral x node" in done.err
    saved = json.loads((here / "figures" / "bench.json").read_text())
    assert saved["environment"]["threads"] == 1
    reference, native = saved["results"]
    assert reference["engine"] == "torchdiffeq" and reference["difference"] == 0
    if compiler() is not None:
        assert native["nfe_forward"] == reference["nfe_forward"] > 0
        assert native["difference"] < 1e-4
        assert native["ms"] > 0 and native["saved_mb"] > 0
    assert {path.name for path in here.iterdir()} == {"figures"}  # no run is left behind


def test_an_engine_that_cannot_serve_the_run_says_why(node_run: NodeRun):
    done = node_run("bench", *SPIRAL, "solver=explicit_adams", "--engine", "torchdiffeq", "--engine", "native")
    assert done.code == 0, done.err
    assert "engine=native runs explicit Runge-Kutta methods, and solver=explicit_adams is none here" in done.out
    alone = node_run("bench", *SPIRAL, "solver=explicit_adams", "--engine", "native")
    assert alone.code == 2
    assert "solver=explicit_adams is none here" in alone.last


def test_the_engine_of_the_run_is_measured_as_it_is_set_beside_the_reference():
    run = make_run(engine="compiled", engine__loop_up_to=0)
    assert chosen(run) == ["torchdiffeq", "compiled"]
    assert with_engine(run, "compiled").engine == run.engine != with_engine(run, "torchdiffeq").engine
    assert chosen(make_run(engine="torchdiffeq")) == ["torchdiffeq"]
    assert set(chosen(make_run(engine="auto"))) == set(ENGINES.names()) - {"auto"}


def test_an_unknown_engine_gets_did_you_mean(node_run: NodeRun):
    done = node_run("bench", "--engine", "natve")
    assert done.code == 2
    assert "did you mean 'native'?" in done.line


def test_the_recommendation_counts_compilation():
    slow = Measured("torchdiffeq", ms=10.0, smallest=9.0, largest=11.0, first_s=0.0, nfe_forward=14)
    fast = Measured("native", ms=1.0, smallest=0.9, largest=1.1, first_s=1.8, nfe_forward=14)
    assert recommendation([slow, fast], 1000) == (
        "recommended: engine=native, 2.8 s for the 1000 steps of this run (torchdiffeq: 10 s); "
        "what it takes to compile is paid back after 200 steps"
    )
    assert recommendation([slow, fast], 100).startswith("recommended: engine=torchdiffeq, 1 s for the 100 steps")
    rows, notes = table([slow, fast, Measured("other", refused="no")])
    assert rows[1][0] == Cell("native") and rows[1][3] == "10 x"
    assert notes == ["no"]
