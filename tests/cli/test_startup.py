"""What a person waits for most often imports nothing heavy, and Ctrl-C ends it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from node_runner.cli.explain import report
from node_runner.errors import ConfigError


HEAVY = {"torch", "torchvision", "torchdiffeq", "scipy", "sklearn", "matplotlib", "tensorboard", "numpy", "pandas"}


def imported(arguments: list[str], environment: dict[str, str], folder: Path) -> set[str]:
    """Top-level modules that a call of the program imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "node_runner.cli.main", *arguments],
        capture_output=True, text=True, env=environment, cwd=folder, timeout=120, check=True,
    )  # fmt: skip
    assert done.stdout
    lines = [line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.split(".")[0] for line in lines}


@pytest.mark.parametrize(
    ("arguments", "too_heavy"),
    [
        (["--version"], {"hydra", "omegaconf", "rich", "pydantic"}),
        (["--help"], {"hydra", "omegaconf", "pydantic"}),
        (["list"], {"hydra", "omegaconf"}),
        (["--cfg", "job"], {"pydantic"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_nothing_heavy_is_imported(
    arguments: list[str], too_heavy: set[str], environment: dict[str, str], tmp_path: Path
):
    assert imported(arguments, environment, tmp_path) & (HEAVY | too_heavy) == set()
    assert list(tmp_path.iterdir()) == []


PROGRAM = """
import os, signal, sys
pressed_at = sys.argv.pop(1)
class Deaf:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(100):
            pass
class Press:
    def find_spec(self, name, *_):
        if name == pressed_at:
            Deaf()
sys.meta_path.insert(0, Press())
signal.signal(signal.SIGINT, signal.default_int_handler)
from node_runner.__main__ import main
main()
"""
"""`node-run`, and Ctrl-C when it begins to import the module that is named first, where no exception gets out."""


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("typer", ["--version"]),
        ("hydra", ["--cfg", "job"]),
        ("torch", ["dataset=spiral"]),
        ("torch", ["doctor"]),
        ("rich.logging", ["dataset=spiral"]),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_ctrl_c_during_imports_is_one_line_and_leaves_nothing(
    module: str, arguments: list[str], environment: dict[str, str], tmp_path: Path
):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, module, *arguments],
        capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "node-run: interrupted\n")
    assert list(tmp_path.iterdir()) == []


RUNS_A_STRING = """
import os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from node_runner.cli.list import command
from node_runner.cli.main import app
command.show_groups = lambda config_dir: exec("os.kill(os.getpid(), signal.SIGINT)\\nwhile True: pass", globals())
app(["list"])
"""
"""Ctrl-C while a string of code is run, as a dataclass is made of."""


def test_ctrl_c_has_its_exit_code_wherever_it_comes(environment: dict[str, str], tmp_path: Path):
    (tmp_path / "program.py").write_text(RUNS_A_STRING)
    done = subprocess.run(
        [sys.executable, "-m", "program"],
        capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "node-run: interrupted\n")


def test_ctrl_c_behind_an_error_that_came_while_it_was_handled_is_known(capsys: pytest.CaptureFixture[str]):
    def half_done() -> None:
        try:
            raise KeyboardInterrupt
        finally:
            raise ConfigError("left half done")

    with pytest.raises(ConfigError) as caught:
        half_done()
    assert report(caught.value) == 130
    assert capsys.readouterr().err == "node-run: interrupted\n"


def test_ctrl_c_while_python_takes_itself_down_changes_no_exit_code(environment: dict[str, str], tmp_path: Path):
    program = """
import atexit, os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv = ["node-run", "--version"]
atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))
from node_runner.__main__ import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("node-run ")
