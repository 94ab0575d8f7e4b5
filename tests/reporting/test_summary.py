"""What is printed at the end of a run."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from node_runner.reporting import console
from node_runner.reporting.console import COST, MEANINGS, duration, quantity, summary


QUALITY = {"loss": 0.5, "mse": 3.1e-5, "relative_rmse": 0.01, "nfe": 26.0}


def outcome(**changes: Any) -> dict[str, Any]:
    parts = {"test": 1.0, "test_long": 4.0, "val": 2.0}
    return {
        "status": "completed",
        "reason": "all steps done",
        "title": "spiral x node x dopri5, adjoint off",
        "metrics": {
            "train/loss": 0.4,
            "optim/lr": 1e-3,
            **dict.fromkeys(COST, 12.345678),
            "time/solve_share": 0.9,
            **{f"{part}/{name}": factor * value for part, factor in parts.items() for name, value in QUALITY.items()},
        },
        "best_step": 200,
        "totals": {"seconds_total": 93.2, "steps": 300},
        "parameters": 4482,
        **changes,
    }


def printed(
    folder: Path, width: int, figures: tuple[str, ...] = (), *, piped: bool = False, **changes: Any
) -> list[str]:
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        # A terminal without colours: what is bold or dim comes without its codes.
        patch.setattr(
            console,
            "CONSOLE",
            Console(file=out, width=width, highlight=False, force_terminal=not piped, color_system=None),
        )
        summary(outcome(**changes), folder, list(figures))
    return [line.rstrip() for line in out.getvalue().splitlines()]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run's folder below the working folder."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "outputs" / "today" / "12-00"
    folder.mkdir(parents=True)
    (folder / "events.out.tfevents.1").touch()
    return folder


def test_nothing_is_cut_off_in_a_file(run: Path) -> None:
    assert any(line.endswith(MEANINGS["relative_rmse"]) for line in printed(run, 40, piped=True))


@pytest.mark.parametrize("width", [80, 120])
def test_every_metric_has_one_line_that_fits(run: Path, width: int) -> None:
    lines = printed(run, width)
    for name in (*COST, *QUALITY, "parameters"):
        assert len([line for line in lines if line.split()[:1] == [name]]) == 1, name
    assert max(map(len, lines)) <= width
    assert not [line for line in lines if "…" in line]


@pytest.mark.parametrize("name", ["energy_drift", "parameter_error", "event_time_error", "event_count_error"])
def test_what_a_metric_means_is_not_cut_off_in_eighty_columns(run: Path, name: str) -> None:
    values = {f"{part}/{name}": 0.12345 for part in ("test", "test_long", "val")}
    (line,) = [line for line in printed(run, 80, metrics=values) if name in line]
    assert line.endswith(MEANINGS[name])


FOUR = {f"{p}/{name}": value for p in ("test", "test_long", "val", "val_tight") for name, value in QUALITY.items()}


@pytest.mark.parametrize("width", [60, 80])
def test_words_that_find_no_room_beside_four_parts_stand_below_them(run: Path, width: int) -> None:
    lines = printed(run, width, metrics=FOUR)
    assert max(map(len, lines)) <= width
    end = lines.index("size")
    said = " ".join(
        " ".join(lines[lines.index("quality                test  test_long        val  val_tight") : end]).split()
    )
    assert said.endswith(
        "nfe 26 26 26 26 loss: what training minimises; mse: squared error, data's units; "
        "relative_rmse: RMS error / RMS of the truth; nfe: evaluations for a batch"
    )


@pytest.mark.parametrize(("width", "piped"), [(100, False), (80, True)])
def test_words_stand_beside_four_parts_where_lines_may_be_that_long(run: Path, width: int, piped: bool) -> None:
    lines = printed(run, width, piped=piped, metrics=FOUR)
    for name in QUALITY:
        (line,) = (line for line in lines if line.split()[:1] == [name])
        assert line.endswith(MEANINGS[name])


def test_all_tests_stand_beside_the_validation(run: Path) -> None:
    lines = printed(run, 80)
    (head,) = (line for line in lines if line.startswith("quality"))
    (mse,) = (line for line in lines if line.startswith("  mse"))
    assert head.split() == ["quality", "test", "test_long", "val"]
    assert mse.split()[1:4] == ["3.1e-05", "0.000124", "6.2e-05"]


def test_columns_are_straight_below_long_names(run: Path) -> None:
    metrics = {"val/loss": 1.0, "test/loss": 2.0, "val/reconstruction_mse": 3.0, "test/reconstruction_mse": 4.0}
    head, loss, long = (
        next(line for line in printed(run, 120, metrics=metrics) if line.startswith(word))
        for word in ("quality", "  loss", "  reconstruction_mse")
    )
    assert head.index("val") + len("val") == loss.index("1") + 1 == long.index("3") + 1


def test_the_likelihood_is_not_printed_as_the_loss_as_well(run: Path) -> None:
    lines = printed(run, 80, metrics={"test/loss": 2.5, "test/nll": 2.5, "val/loss": 2.25, "val/nll": 2.25})
    assert sum("2.5" in line for line in lines) == 1
    assert not [line for line in lines if line.startswith("  loss")]


def test_a_parameter_that_was_found_stands_beside_its_true_value(run: Path) -> None:
    metrics = outcome()["metrics"] | {"val/zeta": 0.1023, "test/zeta": 0.1023, "val/gain": 3.0}
    lines = printed(run, 120, metrics=metrics, truth={"zeta": 0.1})
    assert next(line for line in lines if line.startswith("  zeta")).endswith("true value 0.1")
    assert "true value" not in next(line for line in lines if line.startswith("  gain"))


def test_places_are_relative_and_commands_name_the_run(run: Path) -> None:
    text = "\n".join(printed(run, 80, ("trajectories", "phase_portrait")))
    assert "results      outputs/today/12-00\n" in text
    assert "figures      in figures/: trajectories, phase_portrait\n" in text
    assert "node-run board outputs/today/12-00\n" in text
    assert "node-run evaluate outputs/today/12-00\n" in text
    assert "node-run sample outputs/today/12-00" in text
    assert "all steps done" not in text


def test_what_there_is_not_is_not_mentioned(run: Path) -> None:
    (run / "events.out.tfevents.1").unlink()
    text = "\n".join(printed(run, 80, metrics={"test/accuracy": 0.9, "solver/rejected": 0.0}))
    assert "board" not in text and "figures" not in text and "rejected" not in text
    assert "90 %" in text and "sample" not in text


def test_a_folder_elsewhere_is_written_whole_and_quoted_where_a_shell_needs_it(run: Path) -> None:
    elsewhere = run.parents[2].parent / "a folder [of] runs" / ("x" * 60)
    text = "\n".join(printed(elsewhere, 80))
    assert f"results      {elsewhere}" in text
    assert f"node-run evaluate '{elsewhere}'" in text


def test_a_run_that_was_stopped_says_why(run: Path) -> None:
    text = "\n".join(printed(run, 80, status="interrupted", reason="stopped by Ctrl-C or SIGTERM"))
    assert "adjoint off: interrupted\n" in text
    assert "ended        stopped by Ctrl-C or SIGTERM\n" in text
    assert "next" not in text


def test_a_run_that_ended_early_says_why(run: Path) -> None:
    text = "\n".join(printed(run, 80, reason="no better val/loss in 3 validations"))
    assert "ended        no better val/loss in 3 validations\n" in text


def test_numbers_have_units() -> None:
    assert quantity("memory/peak_mb", 12.3456) == "12.35 MiB"
    assert quantity("accuracy", 0.9482) == "94.82 %"
    assert quantity("nfe/forward", 32.0) == "32"
    assert quantity("mse", None) == "-"


@pytest.mark.parametrize(("seconds", "text"), [(3.456, "3.46 s"), (93, "1 min 33 s"), (7500, "2 h 5 min")])
def test_times_are_said_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
