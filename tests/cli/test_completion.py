"""Completion of commands, groups, options and settings in the shell."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import NodeRun


@pytest.mark.parametrize(
    ("typed", "offered", "not_offered"),
    [
        ("node-run re", {"resume", "regulariser="}, {"evaluate"}),
        ("node-run dat", {"dataset="}, {"train"}),
        ("node-run dataset=l", {"dataset=lotka-volterra"}, {"dataset=spiral"}),
        ("node-run train dataset=l", {"dataset=lotka-volterra"}, set()),
        ("node-run dataset=spiral tolerance.r", {"tolerance.rtol="}, set()),
        ("node-run -m solver=rk", {"solver=rk4"}, set()),
        ("node-run list sol", {"solver"}, {"dataset"}),
        ("node-run list solver rk", {"rk4"}, {"dopri5"}),
        ("node-run sche", {"schedule="}, {"schema", "schema/dataset="}),
    ],
)
def test_words_are_offered(
    node_run: NodeRun, monkeypatch: pytest.MonkeyPatch, typed: str, offered: set[str], not_offered: set[str]
):
    monkeypatch.setenv("COMP_LINE", typed)
    monkeypatch.setenv("COMP_POINT", str(len(typed)))
    done = node_run("-sc", "query=bash")
    words = set(done.out.split())
    assert (done.code, done.err) == (0, "")
    assert offered <= words and not not_offered & words


@pytest.mark.parametrize("typed", ["node-run evaluate out", "node-run dataset=nope tol", "node-run data={ x"])
def test_where_there_is_nothing_to_offer_nothing_is_printed(
    node_run: NodeRun, monkeypatch: pytest.MonkeyPatch, typed: str
):
    monkeypatch.setenv("COMP_LINE", typed)
    monkeypatch.setenv("COMP_POINT", str(len(typed)))
    done = node_run("-sc", "query=bash")
    assert done.err == ""


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes(here: Path, environment: dict[str, str]):
    program = here / "bin" / "node-run"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m node_runner.cli.main "$@"\n')
    program.chmod(0o755)
    script = """
        eval "$(node-run -sc install=bash)"
        COMP_LINE="node-run dataset=lot" COMP_POINT=20 COMP_CWORD=1
        hydra_bash_completion
        echo "${COMPREPLY[@]}"
    """
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, cwd=here, timeout=120, check=True,
        env={**environment, "PATH": f"{program.parent}{os.pathsep}{environment['PATH']}"},
    )  # fmt: skip
    assert done.stdout.split() == ["dataset=lotka-volterra"]
