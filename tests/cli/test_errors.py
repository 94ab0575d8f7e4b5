"""Every mistake is one line that names it, exit code 2, and nothing is left behind."""

from __future__ import annotations

import errno
import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from node_runner.cli.explain import explain
from node_runner.config import compose_run
from node_runner.errors import ConfigError
from node_runner.runs.run import run as train
from tests.cli.conftest import SPIRAL, NodeRun
from tests.mnist import write_idx


COMPOSED = {
    "dataset=spirall": "dataset=spirall: no such option; did you mean 'spiral'?",
    "datset=spiral": "datset: no such setting; did you mean 'dataset'?",
    "tolerance.rtll=1": "tolerance.rtll: no such setting; did you mean 'tolerance.rtol'?",
    "solver.rtol=1": "solver.rtol: no such setting of solver=midpoint; did you mean 'tolerance.rtol'?",
    "method=rk4": "method: no such setting; did you mean 'solver'?",
    "trainer.learning_rate=1": "trainer.learning_rate: no such setting; did you mean 'optimizer.lr'?",
    "lr=1": "lr: no such setting; did you mean 'optimizer.lr'?",
    "solver.step_sise=1": "solver.step_sise: no such setting of solver=midpoint; did you mean 'solver.step_size'?",
    "tolerance.rtol=abc": "tolerance.rtol: expected a number, got abc",
    "trainer.steps=1.5": "trainer.steps: expected a whole number, got 1.5",
    "seed=": "seed: expected a whole number, got nothing",
    "seed=99999999999999999999": "seed: expected a number from 0 to",
    "optimizer.lr=1e39": "optimizer.lr: expected a number of a size that can be computed with, got 1e+39",
    "solver.step_size=1e-300": "solver.step_size: expected a number of a size that can be computed with, got 1e-300",
    "dataset.horizon=1e400": "dataset.horizon: expected a finite number, got inf",
    "dataset.train=99999999999999999999": "dataset.train: expected a whole number of at most 2147483647, got 9999",
    "dataset=irregular_oscillations dataset.times=4611686018427387904": "dataset.times: expected a whole number of at",
    "dataset=mnist dataset.seed=9223372036854775808": "dataset.seed: expected a number from 0 to",
    "model=resnet model.layers_per_output=1000000000000": "model.layers_per_output: expected a number from 1 to 10000",
    "model=resnet model.layers_per_output=1e12": "model.layers_per_output: expected a whole number, got 1000000000",
    "field.width=2147483647": "field.width: expected a number from 1 to 1000000, got 2147483647",
    "field.depth=2147483647": "field.depth: expected a number from 1 to 10000, got 2147483647",
    "trainer.epochs=1099511627776": "trainer.epochs: expected a whole number of at most 2147483647, got 1099511627776",
    "device.threads=100000": "device.threads: expected a number from 1 to 1024, got 100000",
    "dataset.start=abc": "dataset.start: expected a list",
    "~dataset": "~dataset: a run has a dataset; dataset=NAME chooses another one",
    "~trainer.steps": "~trainer.steps: a setting cannot be taken away; use trainer.steps=VALUE",
    "tolerance.rtol=2": "tolerance.rtol: expected a number above 0 and of at most 1, got 2.0",
    "device.tf32=maybe": "device.tf32: expected true or false, got maybe",
    "debug=true": "debug=true: no such option; choose from fast",
    "adjoint=False": "adjoint=False: no such option; choose from checkpoint, off, on, seminorm",
    "model=2": "model=2: no such option; choose from",
    "regulariser=[kinetik]": "regulariser=kinetik: no such option; did you mean 'kinetic'? (choose from jacobian,",
    "model.encoder=cnov": "model.encoder: Invalid value 'cnov', expected one of",
    "tolerance.rtol=-1": "tolerance.rtol: expected a number above 0 and of at most 1, got -1.0",
    "optimizer.beta1=1.5": "optimizer.beta1: expected a number from 0 to 1, got 1.5",
    "+foo=1": "foo: no such setting",
    "logger.tensorboard.x=1": "logger.tensorboard.x: no such setting of logger=tensorboard; it has none",
    "~foo": "Could not delete from config",
    "figures=pdf": "figures: expected a list, such as [png,pdf]",
    "figures.x=1": "'x': a list has entries .0, .1 and so on, or is given whole, such as figures=[png,pdf]",
    "data={a": "data={a: not a valid override",
}
"""Refused before anything is built."""

TYPED = {
    "lst": "'lst' is neither a command nor an override (key=value); did you mean 'list'?",
    "list": "list: a command stands before its flags: node-run list ...",
    "experiment=hamil": "experiment=hamil: no such option; did you mean 'hamiltonian_drift'? (choose from",
    "regulariser=kinetic,jacobian": "Ambiguous value for argument 'regulariser=kinetic,jacobian' (add -m to run one "
    "job for each value, or use regulariser=[kinetic,jacobian] to choose them all)",
    "hydra/launcher=joblb": "hydra/launcher=joblb: no such option; choose from ",
    "debug=1": "debug=1: no such option; choose from fast",
    "seed=1,2": "Ambiguous value for argument 'seed=1,2' (add -m",
    "--mutlirun": "--mutlirun: no such flag; did you mean '--multirun'?",
    "--cfg=jbo": "--cfg jbo: did you mean 'job'?",
    "-cn=nope": "Cannot find primary config 'nope'",
    "--config-dir=nope": "Additional config directory",
}
"""What only the command line can hold."""

MISFITS = {
    "dataset.start=[1,2]": "dataset.start: expected lists of numbers, such as [[1, 0], [0, 2]], got [1, 2]",
    "dataset.start=[[1,nan]]": "dataset.start: expected lists of numbers, such as [[1, 0], [0, 2]], got [[1, nan]]",
    "dataset=spiral field=conv": "field=conv needs a state that is an image",
    "dataset=two_moons model=node model.encoder=conv": "model.encoder=conv needs images, and dataset=two_moons",
    "dataset=digits model=node field=conv model.encoder=mlp": "model.encoder=mlp makes states that this field",
    "solver=scipy_solver": "adjoint=off cannot differentiate solver=scipy_solver",
    "adjoint=seminorm solver=rk4": "use adjoint=on",
    "trainer.steps=null": "give steps or epochs",
    "trainer.window=1000": "trainer.window=1000",
    "trainer.window=null trainer.shooting=10 trainer.first_states=learned": "use trainer.first_states=given",
    "solver=dopri5 solver.max_step=0.1 solver.min_step=0.2": "solver.max_step: expected at least solver.min_step=0.2",
    "tolerance.start_rtol=1e-2": "a schedule needs both start_rtol and start_atol",
    "device=mps": "device=mps: no Apple GPU",
    "dataset.start=[[1e300,0]]": "dataset=spiral: its numbers are too large for device.precision=float32",
    "dataset=annuli dataset.dim=10000": "dataset=annuli: its numbers are too large to compute with",
    "dataset=ornstein_uhlenbeck dataset.spread=1e12": "dataset.spread=1e+12: expected at most a million times",
}
"""Parts that do not fit each other or this machine: refused when the run is assembled."""


@pytest.mark.parametrize(("typed", "said"), COMPOSED.items(), ids=list(COMPOSED))
def test_what_cannot_be_composed_is_one_line(here: Path, typed: str, said: str):
    with pytest.raises(Exception) as refused:
        compose_run(["solver=midpoint", *typed.split()])
    line = explain(refused.value, ["list", "train"])
    assert line is not None and line.startswith(said) and "\n" not in line


@pytest.mark.skipif(find_spec("optuna") is not None, reason="Optuna is installed")
def test_what_is_a_package_of_its_own_says_how_to_get_it(node_run: NodeRun):
    said = "hydra/sweeper=optuna: no such option; choose from basic; for optuna: pip install hydra-optuna-sweeper"
    assert node_run("-m", "hydra/sweeper=optuna").line == f"node-run: {said}"


@pytest.mark.parametrize("typed", ["model.start={mu:20}", "model.start.mu=20"])
def test_names_of_ones_own_are_added_with_a_plus(here: Path, typed: str):
    model = ["dataset=van_der_pol", "model=greybox"]
    with pytest.raises(Exception) as refused:
        compose_run([*model, typed])
    assert explain(refused.value) == (
        "model.start.mu: a name that you give yourself is added with a plus: +model.start.mu=..."
    )
    assert compose_run([*model, "+model.start.mu=20"]).model.start == {"mu": 20.0}


@pytest.mark.parametrize(("typed", "said"), MISFITS.items(), ids=list(MISFITS))
def test_what_does_not_fit_is_refused_before_anything_is_written(here: Path, typed: str, said: str):
    if typed == "device=mps" and torch.backends.mps.is_available():
        pytest.skip("there is an Apple GPU")
    with pytest.raises(ConfigError) as refused:
        train(compose_run(["logger=[]", *typed.split()]), here / "run")
    line = explain(refused.value)
    assert line is not None and said in line and "\n" not in line
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("typed", [*TYPED, "dataset=spirall", "optimizer.beta1=1.5", "adjoint=seminorm"])
def test_the_program_refuses_and_leaves_nothing(node_run: NodeRun, here: Path, typed: str):
    done = node_run("solver=midpoint", typed)
    assert done.code == 2
    assert done.line.startswith(f"node-run: {TYPED.get(typed, '')}")
    assert list(here.iterdir()) == []


def test_a_gpu_that_is_not_there_is_refused(node_run: NodeRun, here: Path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = node_run(*SPIRAL, "device=cuda")
    assert (done.code, list(here.iterdir())) == (2, [])
    assert done.line.startswith("node-run: device=cuda: ") and "use device=cpu" in done.line


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["evaluate"], "Missing argument 'RUN'; see `node-run evaluate --help`"),
        (["evaluate", "nope"], "nope: no such folder; runs are kept below outputs/"),
        (["sample", "nope"], "nope: no such folder"),
        (["resume", "nope"], "nope: no such folder"),
        (["compare", "nope"], "nope: no such folder"),
        (["compare", "nope/*"], "nope/*: no such folder"),
        (["board", "nope"], "nope: no such folder"),
        (["evaluate", "empty"], "empty: not a run; it has no config.yaml"),
        (["compare", "empty"], "empty: holds no run"),
        (["compare", "file.txt"], "file.txt: holds no run"),
        (["board", "file.txt"], "file.txt: holds no run"),
        (["list", "nope"], "nope: no such group; choose from"),
        (["bench", "--engine", "nope"], "engine=nope: no such engine; did you mean"),
        (["bench", "--save", "empty"], "--save empty: expected a file that can be written"),
        (["ensemble", "x", "y", "--until", "nan"], "--until nan: expected a time above 0"),
        (["ensemble", "x", "y", "--out", "file.txt/x.json"], "--out file.txt/x.json: expected a file that can be"),
        (["robustness", "x", "--level", "inf"], "--level inf: expected 0 or more"),
        (["evaluate", "x", "--save", "empty"], "--save empty: expected a file that can be written"),
        (["board", "--port", "70000"], "Invalid value for '--port'"),
        (["doctor", "more"], "Got unexpected extra argument"),
        (["compare", "x", "--polt", "y"], "No such option: --polt"),
        (["sample", "x", "--count", "many"], "Invalid value for '--count'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_in_commands_are_one_line(node_run: NodeRun, here: Path, typed: list[str], said: str):
    (here / "empty").mkdir()
    (here / "file.txt").touch()
    (here / "beside").mkdir()
    (here / "beside" / "config.yaml").touch()
    done = node_run(*typed)
    assert done.code == 2
    assert done.line.startswith(f"node-run: {said}")


def test_a_run_of_a_similar_name_is_suggested(node_run: NodeRun, spiral: Path):
    assert node_run("evaluate", "outputs/spirral").line.endswith("did you mean 'outputs/spiral'?")
    assert node_run("evaluate", "somewhere").line.endswith("the latest run is outputs/spiral")
    assert node_run("evaluate", "outputs").line.endswith("the folder of one is wanted, such as outputs/spiral")


@pytest.mark.parametrize("place", ["/proc/x", "taken/below"])
def test_a_folder_that_cannot_be_made_is_refused(node_run: NodeRun, here: Path, place: str):
    (here / "taken").write_text("a file is in the way")
    done = node_run(*SPIRAL, f"hydra.run.dir={place}")
    assert done.code == 2
    assert done.line.startswith(f"node-run: cannot read or write {place}: ")
    assert (here / "taken").read_text() == "a file is in the way"


def test_a_folder_that_holds_a_run_is_refused_and_left_alone(node_run: NodeRun, spiral: Path):
    before = {file: file.read_bytes() for file in spiral.rglob("*") if file.is_file()}
    done = node_run(*SPIRAL, "seed=5", f"hydra.run.dir={spiral}")
    assert done.code == 2
    assert "holds a run already" in done.line
    assert {file: file.read_bytes() for file in before} == before


def test_a_truncated_file_of_images_is_refused(node_run: NodeRun, here: Path):
    raw = here / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, shape in {
        "train-images-idx3-ubyte": (10, 28, 28), "train-labels-idx1-ubyte": (10,),
        "t10k-images-idx3-ubyte": (10, 28, 28), "t10k-labels-idx1-ubyte": (10,),
    }.items():  # fmt: skip
        write_idx(raw / name, np.zeros(shape))
    done = node_run("dataset=mnist", f"dataset.root={here / 'data'}", "debug=fast")
    assert done.code == 2
    assert "train-images-idx3-ubyte is not the official file: expected 47040016 bytes" in done.line
    assert not (here / "outputs").exists()


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["optimizer.lr=1e30", "trainer.steps=40"], ""),
        (["solver=dopri5", "solver.max_steps=1"], "spent its budget of solver.max_steps=1"),
    ],
    ids=["divergence", "step-budget"],
)
def test_a_run_that_fails_says_why_and_keeps_a_record(node_run: NodeRun, here: Path, typed: list[str], said: str):
    done = node_run(*SPIRAL, *typed, "hydra.run.dir=outputs/x")
    assert done.code == 1
    assert done.last.startswith("node-run: ") and said in done.last
    assert "Error executing job" not in done.err and "Traceback" not in done.err
    result = json.loads((here / "outputs" / "x" / "result.json").read_text())
    assert result["status"] in ("failed", "diverged")
    assert done.last == f"node-run: {result['reason']}"


def test_a_bug_is_a_traceback(node_run: NodeRun, here: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("node_runner.runs.run.test", lambda *_: 1 // 0)
    done = node_run(*SPIRAL, "hydra.run.dir=outputs/x")
    assert done.code == 1
    assert done.last == "ZeroDivisionError: integer division or modulo by zero"
    assert "Traceback" in (here / "outputs" / "x" / "traceback.txt").read_text()


def test_a_full_error_can_be_asked_for(node_run: NodeRun, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    done = node_run(*SPIRAL, "tolerance.rtol=-1")
    assert "Traceback" in done.err and done.last.endswith("expected a number above 0 and of at most 1, got -1.0")


def test_too_large_a_network_is_one_line_and_leaves_nothing(node_run: NodeRun, here: Path):
    done = node_run(*SPIRAL, "field.width=1000000")
    assert done.code == 1
    assert done.line.startswith("node-run: out of memory (") and "field.width" in done.line
    assert not any(here.iterdir())


def test_the_command_train_alone_trains_the_defaults(node_run: NodeRun):
    done = node_run("train", "--cfg", "job")
    assert done.code == 0 and "seed: 0" in done.out


def test_only_errors_that_a_user_can_mend_are_explained():
    assert explain(ZeroDivisionError("division by zero")) is None
    too_large = "array is too big; `arr.size * arr.dtype.itemsize` is larger than the maximum possible size."
    assert str(explain(ValueError(too_large))).startswith("out of memory (array is too big")
    assert explain(FileNotFoundError(2, "No such file or directory", "x")) == (
        "cannot read or write x: No such file or directory"
    )


def test_a_full_disk_is_told_as_such():
    made = explain(OSError(errno.ENOSPC, "No space left on device", "outputs/x/last.pt"))
    assert made == (
        "no space left on the disk to write outputs/x/last.pt; make room, or choose another one by hydra.run.dir=FOLDER"
    )
    assert "no space left on the disk;" in str(explain(OSError(errno.ENOSPC, "No space left on device")))
