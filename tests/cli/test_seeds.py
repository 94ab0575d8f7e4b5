"""Runs that differ by their seeds alone, as one row."""

from __future__ import annotations

from typing import Any

from node_runner.cli.compare.seeds import over_seeds, spread


def run(model: str, seed: int, loss: float | None, status: str = "completed") -> dict[str, Any]:
    return {"model": model, "dataset.seed": seed, "val/loss": loss, "status": status}


def test_runs_of_one_choice_make_a_row_with_median_and_range():
    records = [run("node", 0, 3.0), run("node", 1, 1.0), run("node", 2, 2.0), run("cnf", 0, 5.0), run("cnf", 1, 5.0),
               run("cnf", 2, 9.0, "failed")]  # fmt: skip
    assert over_seeds(records, ["model", "dataset.seed"], ["val/loss"]) == (
        ["model", "seeds", "val/loss"],
        [["node", 3, "2 (1 to 3)"], ["cnf", 2, "5"]],
    )


def test_without_seeds_or_a_second_run_there_is_nothing_to_say():
    assert over_seeds([run("node", 0, 1.0), run("cnf", 0, 1.0)], ["model"], ["val/loss"]) == ([], [])
    assert over_seeds([run("node", 0, 1.0), run("cnf", 1, 1.0)], ["model", "dataset.seed"], ["val/loss"]) == ([], [])


def test_what_a_run_of_the_set_lacks_is_left_empty():
    assert spread([1.0, None]) == ""
    assert spread([2.0, 1.0]) == "1.5 (1 to 2)"
