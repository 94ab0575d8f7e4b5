"""The command line within the test's process: torch is imported once, and nothing is drawn that is not looked at."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from node_runner.cli.main import app
from node_runner.config import compose_run
from node_runner.runs.run import run as train


class Outcome(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line on stderr."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        return lines[0]

    @property
    def last(self) -> str:
        """The last line on stderr."""
        return self.err.splitlines()[-1]


NodeRun = Callable[..., Outcome]

SHORT = (
    "trainer.steps=6", "trainer.log_every=2", "trainer.eval_every=3", "trainer.batch_size=4", "trainer.window=null",
    "trainer.average=null", "solver=midpoint", "field.width=8", "logger=[]", "device=cpu",
    "trainer.check_solver=false",
)  # fmt: skip
SPIRAL = (*SHORT, "dataset.times=8", "dataset.train=8", "dataset.val=4", "dataset.test=4", "dataset.long=2")
MOONS = (*SHORT, "dataset=two_moons", "dataset.train=40", "dataset.val=20", "dataset.test=20")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Every test has a working folder of its own, no figures, and leaves the loggers as they were."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("node_runner.runs.run.draw", lambda *_: iter(()))
    monkeypatch.setattr("node_runner.cli.train.sweep.draw_sweep", lambda runs, folder: None)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.delenv("COMP_LINE", raising=False)
    root, own = logging.getLogger(), logging.getLogger("node_runner")
    before = (root.handlers[:], root.level, own.handlers[:], own.level)
    path = sys.path[:]
    yield tmp_path
    for logger, kept in ((root, before[0]), (own, before[2])):
        for handler in set(logger.handlers) - set(kept):
            handler.close()
        logger.handlers[:] = kept
    root.setLevel(before[1])
    own.setLevel(before[3])
    sys.path[:] = path


@pytest.fixture
def node_run(capsys: pytest.CaptureFixture[str]) -> NodeRun:
    """Call `node-run ARGUMENTS` in this process."""

    def call(*arguments: str) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            app(list(arguments), prog_name="node-run")
        captured = capsys.readouterr()
        code = end.value.code
        return Outcome(code if isinstance(code, int) else 0, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with finished runs: spiral (trajectories), flow (a density), classes."""
    root = tmp_path_factory.mktemp("trained")
    runs = {
        "spiral": SPIRAL,
        "flow": (*MOONS, "model=cnf", "field=mlp", "field.width=8", "solver.step_size=0.25"),
        "classes": (*MOONS, "model=node"),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("node_runner.runs.run.draw", lambda *_: iter(()))
        for name, overrides in runs.items():
            train(compose_run(overrides), root / name, live=False)
    return root


@pytest.fixture
def spiral(trained: Path, here: Path) -> Path:
    """A copy of the finished run on the spiral, to be changed."""
    return Path(shutil.copytree(trained / "spiral", here / "outputs" / "spiral")).relative_to(here)


@pytest.fixture
def series(here: Path) -> Path:
    """A finished run on irregular series."""
    small = ("dataset.train=8", "dataset.val=4", "dataset.test=4", "dataset.times=12", "dataset.observed=8")
    train(compose_run((*SHORT, "dataset=irregular_spirals", "model=latent", *small)), here / "series", live=False)
    return Path("series")


@pytest.fixture
def environment() -> dict[str, str]:
    """For a program of its own: this checkout is importable from anywhere."""
    import node_runner

    root = str(Path(node_runner.__file__).parent.parent)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}
