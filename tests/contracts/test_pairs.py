"""Every data set with every model, and every solver with every adjoint: it trains, or is refused in one sentence."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from node_runner.adjoints import ADJOINTS
from node_runner.config import RunConfig, compose_run
from node_runner.datasets import DATASETS
from node_runner.engines import ENGINES
from node_runner.errors import ConfigError
from node_runner.fields import FIELDS
from node_runner.models import MODELS
from node_runner.models.parts.declarations import views_of
from node_runner.regularisers import REGULARISERS
from node_runner.runs.rehearsal import rehearse
from node_runner.solvers import SOLVERS
from node_runner.training import OPTIMIZERS, SCHEDULES
from node_runner.views import Dataset, View
from tests.contracts.test_datasets import declared_views
from tests.runs import make_run, smaller_overrides, trainer_of


PAIRS = [(dataset, model) for dataset in DATASETS.names() for model in MODELS.names()]
MUST_TRAIN = {
    (dataset, model)
    for dataset in ("spiral", "oscillator", "lotka-volterra", "mnist")
    for model in ("node", "augmented", "cnf")
}
"""Promised: these run as `node-run dataset=... model=...` composes them, the others with small settings."""


def _halves(data: Dataset) -> bool:
    return data.spec(View.trajectories).shape[0] % 2 == 0


ASKS_MORE: dict[str, Callable[[Dataset], bool]] = {
    "hamiltonian": _halves,
    "second_order": _halves,
    "graph": lambda data: data.spec(View.trajectories).graph is not None,
    "greybox": lambda data: data.spec(View.trajectories).equation is not None,
    "neural_sde": lambda data: not getattr(data.spec(View.processes).law, "noise", 0),
}
"""Models that need more of a data set than a view, and whether it has that: refused in a sentence where not."""


WITHOUT_AN_ODE = {"rnn"}
"""Models that are baselines of others."""

TRAINED_WITHOUT_A_SOLVE = {*WITHOUT_AN_ODE, "flow_matching", "neural_sde"}
"""Models whose training solves nothing."""


STOCHASTIC = {"latent_sde", "neural_sde"}
"""Models whose equation is stochastic, and which need a solver for such ones."""


def train(run: RunConfig, folder: Path) -> None:
    """Two steps with validation, and every test part measured."""
    trainer, experiment, lines = trainer_of(run, folder)
    trained = trainer.train()
    assert (trained.status, trained.step) == ("completed", 2)
    assert all(math.isfinite(value) for _, values in lines.lines for value in values.values())
    assert len(lines.of("train/loss")) == 2
    assert all((nfe > 0) is (run.model.name not in WITHOUT_AN_ODE) for nfe in lines.of("val/nfe"))
    assert all((nfe > 0) is (run.model.name not in TRAINED_WITHOUT_A_SOLVE) for nfe in lines.of("nfe/forward"))
    for name, part in experiment.splits.items():
        if name.startswith("test"):
            assert math.isfinite(trainer.evaluate(part)["loss"])


def assert_refused_in_a_sentence(error: ConfigError, *names: str) -> None:
    message = str(error)
    assert "\n" not in message
    assert "use " in message
    assert all(name in message for name in names)


@pytest.mark.parametrize(("dataset", "model"), PAIRS, ids=[f"{dataset}-{model}" for dataset, model in PAIRS])
def test_every_pair_of_data_set_and_model_trains_or_is_refused(
    dataset: str, model: str, tmp_path: Path, request: pytest.FixtureRequest
):
    if dataset == "mnist":
        request.getfixturevalue("any_mnist")
    if model in STOCHASTIC:
        pytest.importorskip("torchsde", reason="torchsde is not installed: pip install 'node-runner[sde]'")
    if (dataset, model) in MUST_TRAIN:
        small = smaller_overrides(DATASETS.schema(dataset)())
        run = compose_run([f"dataset={dataset}", f"model={model}", "debug=fast", "device=cpu", "logger=[]", *small])
    else:
        more = {"solver": "euler_maruyama", "engine": "torchsde"} if model in STOCHASTIC else {}
        field = "concatsquash" if model in ("cnf", "flow_matching") else "mlp"
        run = make_run(dataset=dataset, model=model, field=field, **more)
    fits = set(declared_views(dataset)) & set(views_of(MODELS.get(model)))
    assert fits or (dataset, model) not in MUST_TRAIN
    if fits and ASKS_MORE.get(model, lambda data: True)(DATASETS.build(run.dataset)):
        train(run, tmp_path / "run")
    else:
        with pytest.raises(ConfigError) as caught:
            trainer_of(run, tmp_path / "run")
        assert_refused_in_a_sentence(caught.value, f"model={model}", f"dataset={dataset}")
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("dataset", [name for name in DATASETS.names() if name != "file"])
def test_a_data_set_alone_has_a_model_that_can_learn_from_it(dataset: str):
    run = compose_run([f"dataset={dataset}"])
    model = run.model.name
    assert set(declared_views(dataset)) & set(views_of(MODELS.get(model)))
    assert ASKS_MORE.get(model, lambda data: True)(DATASETS.build(run.dataset))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES.names())
@pytest.mark.parametrize("adjoint", ADJOINTS.names())
@pytest.mark.parametrize("solver", SOLVERS.names())
def test_every_solver_trains_with_every_adjoint_or_is_refused(
    solver: str, adjoint: str, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # Its steps called as they are written: compiling each of these would take minutes.
    monkeypatch.setattr("node_runner.engines.compiled.engine.CompiledEngine._compiles", False)
    run = make_run(
        solver=solver, adjoint=adjoint, engine=engine,
        # More numbers in a batch than engine=compiled differentiates all at once, which is long to trace.
        **{"dataset__times": 4, "dataset__horizon": 0.5, "dataset__train": 5, "dataset__long": 0},
    )  # fmt: skip
    method, built = SOLVERS.build(run.solver, solver), ENGINES.get(engine)()
    field = FIELDS.build(run.field, (2,))
    reasons = [
        other.unsupported(method) or other.refuses(method, field, torch.zeros(4, 2), None, adjoint)
        for other in built.candidates(0)
    ]
    if ADJOINTS.get(adjoint)().unsupported(method) is None and None in reasons:
        train(run, tmp_path)
    else:
        with pytest.raises(ConfigError) as caught:
            trainer, experiment, _ = trainer_of(run, tmp_path)
            rehearse(experiment, trainer.batch)
        assert_refused_in_a_sentence(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("field", FIELDS.names())
@pytest.mark.parametrize("model", MODELS.names())
@pytest.mark.parametrize("dataset", ["spiral", "digits", "two_moons"])
def test_every_field_trains_in_every_model_or_is_refused(dataset: str, model: str, field: str, tmp_path: Path):
    coarse = {"solver": "midpoint", "solver__step_size": 0.5} if dataset != "spiral" else {"solver": "midpoint"}
    run = make_run(dataset=dataset, model=model, field=field, **coarse)
    if hasattr(run.model, "state"):
        run.model.state = 4
    try:
        trainer_of(run, tmp_path / "first")
    except ConfigError as error:
        assert_refused_in_a_sentence(error)
        # Only a field that takes images may have no state to work on, and one that is not told the time no velocity.
        assert (
            FIELDS.get(field).state_ndim == 3
            or (model == "flow_matching" and field in ("affine", "mlp"))
            or set(declared_views(dataset)).isdisjoint(views_of(MODELS.get(model)))
            or not ASKS_MORE.get(model, lambda data: True)(DATASETS.build(run.dataset))
        )
    else:
        train(run, tmp_path)


@pytest.mark.parametrize("schedule", SCHEDULES.names())
def test_every_schedule_trains(schedule: str, tmp_path: Path):
    train(make_run(schedule=schedule, solver="midpoint"), tmp_path)


@pytest.mark.parametrize("optimizer", OPTIMIZERS.names())
def test_every_optimiser_trains(optimizer: str, tmp_path: Path):
    train(make_run(optimizer=optimizer, optimizer__lr=1e-3, solver="midpoint"), tmp_path)


@pytest.mark.parametrize("regulariser", REGULARISERS.names())
@pytest.mark.parametrize("dataset", ["spiral", "digits", "two_moons"])
def test_every_regulariser_is_added_to_every_task(dataset: str, regulariser: str, tmp_path: Path):
    model = "cnf" if dataset == "two_moons" else "node"
    looks_at_steps = hasattr(REGULARISERS.get(regulariser), "of_step")
    coarse = {"solver__step_size": 0.5} if dataset != "spiral" and not looks_at_steps else {}
    run = make_run(dataset=dataset, model=model, regularisers=[regulariser],
                   solver="dopri5" if looks_at_steps else "midpoint", **coarse)  # fmt: skip
    trainer, _, lines = trainer_of(run, tmp_path)
    trainer.train()
    assert all(value > 0 for value in lines.of(f"regulariser/{regulariser}"))
    assert len(lines.of(f"regulariser/{regulariser}")) == 2
