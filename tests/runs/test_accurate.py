"""What a model is when it is solved accurately."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from node_runner.adjoints import ADJOINTS
from node_runner.assemble import assemble
from node_runner.engines import ENGINES
from node_runner.runs.accurate import accurate_solve
from node_runner.runs.run import test as measure
from node_runner.runs.trust import PART, advice
from node_runner.settings import ToleranceConfig
from node_runner.solvers import SOLVERS
from node_runner.solving import Solve, Tolerances
from tests.runs import make_run, trainer_of


def solve_by(name: str, rtol: float = 1e-9) -> Solve:
    method = SOLVERS.build(SOLVERS.schema(name)(), name)
    tolerances = Tolerances(ToleranceConfig(rtol=rtol, atol=rtol / 10))
    return Solve(ENGINES.get("torchdiffeq")(), method, ADJOINTS.get("off")(), tolerances)


def test_another_solve_can_take_the_place_of_one_and_leaves_it_after_an_error_too():
    coarse, fine = solve_by("euler"), solve_by("dopri5")
    y0, ts = torch.ones(1, 1, dtype=torch.float64), torch.tensor([0.0, 1.0], dtype=torch.float64)

    def end() -> float:
        return float(coarse(lambda t, y: -y, y0, ts).ys[-1])

    assert end() == 0.0  # one step of Euler's method
    with pytest.raises(RuntimeError), coarse.instead(fine):
        assert end() == pytest.approx(0.36787944, abs=1e-8)
        raise RuntimeError
    assert end() == 0.0


def test_an_adaptive_solver_is_tightened_and_fixed_steps_are_replaced():
    tightened = accurate_solve(assemble(make_run(solver="bosh3", adjoint="on", engine="native")))
    assert tightened is not None
    assert (tightened.method.name, tightened.engine.name) == ("bosh3", "native")
    assert tightened.tolerances.forward() == pytest.approx((1e-5, 1e-6))
    replaced = accurate_solve(assemble(make_run(solver="euler", engine="native", tolerance__eval_rtol=1e-10)))
    assert replaced is not None
    assert (replaced.method.name, replaced.engine.name) == ("dopri5", "torchdiffeq")
    assert replaced.tolerances.forward() == pytest.approx((1e-11, 1e-6))


@pytest.mark.parametrize(
    "run",
    [
        {"model": "resnet"},
        {
            "dataset": "ornstein_uhlenbeck",
            "model": "neural_sde",
            "solver": "euler_maruyama",
            "engine": "auto",
            "dataset__noise": 0.0,
        },
        {"tolerance__rtol": 5e-11},
    ],
)
def test_there_is_none_without_a_solve_with_noise_or_at_the_limit_of_the_precision(run: dict[str, object]):
    assert accurate_solve(assemble(make_run(**run))) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("check", [True, False])
def test_the_validation_part_is_measured_so_and_nothing_else_changes(check: bool, tmp_path: Path):
    trainer, experiment, _ = trainer_of(make_run(solver="euler", trainer__check_solver=check), tmp_path)
    trainer.train()
    before = trainer.evaluate(experiment.splits.val)
    metrics = measure(trainer, experiment)
    assert (f"{PART}/loss" in metrics) is check
    assert trainer.evaluate(experiment.splits.val) == before
    if check:
        assert metrics[f"{PART}/loss"] != pytest.approx(before["loss"], rel=1e-6)
        assert metrics[f"{PART}/nfe"] > before["nfe"]


def test_a_difference_that_matters_is_told_with_what_to_do():
    def found(name: str, own: float, accurate: float, adaptive: bool = False) -> str | None:
        metrics = {f"val/{name}": own, f"{PART}/{name}": accurate, "val/loss": 1.0, f"{PART}/loss": 9.0}
        return advice(metrics, adaptive=adaptive)

    assert found("accuracy", 0.97, 0.955) is None and found("accuracy", 0.97, 0.9) is not None
    assert found("nll", -0.001, 0.005) is None and found("nll", 2.5, 2.6) is not None
    assert found("relative_rmse", 0.01, 0.011) is None
    told = found("relative_rmse", 0.0038, 0.1836)
    assert told is not None
    assert told.startswith("val/relative_rmse is 0.0038, and 0.1836 solved accurately: ") and "solver.step_size" in told
    assert "tolerance.rtol" in str(found("relative_rmse", 0.1, 0.2, adaptive=True))
    assert advice({"val/loss": 1.0}, adaptive=True) is None
