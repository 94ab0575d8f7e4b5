"""A training step frees its graph at once: nothing waits for the garbage collector."""

from __future__ import annotations

import gc

import pytest
import torch

from node_runner import library
from node_runner.batches import PointBatch
from node_runner.tasks import make_task
from node_runner.views import View


def alive() -> int:
    """Tensors that Python still knows of."""
    return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())


@pytest.mark.parametrize("solver", ["dopri5", "rk4", "scipy_solver"])
@pytest.mark.parametrize("adjoint", ["off", "on", "seminorm"])
def test_a_step_leaves_no_tensor_behind(solver: str, adjoint: str) -> None:
    if (solver, adjoint) in {("scipy_solver", "off"), ("scipy_solver", "seminorm"), ("rk4", "seminorm")}:
        pytest.skip("refused by design")
    settings = {"step_size": 0.25} if solver == "rk4" else {}
    data = library.dataset("two_moons", train=64, val=8, test=8)
    solve = library.solver(solver, rtol=1e-2, atol=1e-3, adjoint=adjoint, **settings)
    model = library.model("cnf", data, solve, field_settings={"width": 8}).float()
    task = make_task(data.spec(View.points), {})
    batch = PointBatch(data.splits(View.points).train.x.float())
    counts = []
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            task.step(model, batch).loss.backward()
            counts.append(alive())
    finally:
        gc.enable()
    assert counts[1] == counts[2], counts
