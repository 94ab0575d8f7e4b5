"""Tables: plain where the output is piped, drawn on a terminal, and never a figure broken in two."""

from __future__ import annotations

import pytest

from node_runner.cli.tables import Cell, _draw, show


COLUMNS = ("name", "test/relative_rmse", "what it is")
ROWS = [("one", Cell("0.123456"), "a sentence of some length that may be broken"), ("two", "12", "short")]


def test_a_piped_table_has_plain_columns(capsys: pytest.CaptureFixture[str]):
    show(COLUMNS, ROWS, title="results", numbers=["test/relative_rmse"])
    assert capsys.readouterr().out.splitlines() == [
        "results",
        "name  test/relative_rmse  what it is",
        "one            0.123456*  a sentence of some length that may be broken",
        "two                   12  short",
    ]


def test_a_drawn_table_breaks_headings_and_sentences_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "40")
    _draw(COLUMNS, ROWS, "results", ["test/relative_rmse"], ["what it is"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 40
    assert lines[0].strip() == "results"
    assert any("0.123456" in line and "a sentence" in line for line in lines)
    assert not any("relative_rmse" in line for line in lines)


def test_figures_are_whole_on_the_narrowest_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "10")
    _draw(COLUMNS, ROWS, "", ["test/relative_rmse"], [])
    assert "0.123456" in capsys.readouterr().out
