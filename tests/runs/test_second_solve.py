"""A run whose continuous adjoint takes many times the evaluations of its solve is told so."""

from __future__ import annotations

from pathlib import Path

import pytest

from node_runner.runs.result import Ending, make_result
from node_runner.runs.second_solve import RATIO, advice
from tests.runs import make_run, trainer_of


def test_it_is_said_of_a_second_solve_that_takes_many_evaluations_and_of_no_other():
    sentence = advice("on", 100.0, 100 * RATIO)
    assert sentence is not None and sentence.startswith("nfe/backward is 4 times nfe/forward: adjoint=on solves")
    assert advice("seminorm", 100.0, 1000.0) is not None
    assert advice("on", 100.0, 150.0) is None
    assert advice("checkpoint", 100.0, 1000.0) is None
    assert advice("on", None, None) is None
    assert advice("on", 0.0, 0.0) is None


@pytest.mark.parametrize(("adjoint", "told"), [("on", True), ("off", False)])
def test_a_run_with_many_output_times_is_told(adjoint: str, told: bool, tmp_path: Path):
    trainer, experiment, _ = trainer_of(make_run(adjoint=adjoint, engine="auto", trainer__window=None), tmp_path)
    trainer.train()
    found = make_result(experiment, trainer, Ending("completed", ""))["advice"]
    assert any(sentence.startswith("nfe/backward") for sentence in found) is told
