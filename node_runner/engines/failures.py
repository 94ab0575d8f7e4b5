"""Why a solve gave up, or is not served at all: sentences that are the same on every engine."""

from __future__ import annotations

import torch
from torch import Tensor

from node_runner.types import Method


NOT_FINITE = "the state or the field is not finite there; try a smaller optimizer.lr or trainer.grad_clip=1"


def stopped(method: Method, t: float, end: float, step: float, *, finite: bool) -> str:
    """The step became too small to move on, or the state or the field is no number.

    Args:
        method: that was running.
        t, end: where it stopped, and where it was to go.
        step: size of the attempt.
        finite: whether state and field are finite at t.
    """
    where = f"{method.name} stopped at t={t:.6g} of {end:.6g}"
    if not finite:
        return f"{where}: {NOT_FINITE}"
    return (
        f"{where}: the step became too small to move on ({step:.1e}); the field is stiff or rough there: "
        f"try {_implicit(method)}a looser tolerance, solver.min_step, device.precision=float64, or a smaller "
        "optimizer.lr"
    )


def spent(method: Method, t: float, step: float, accepted: int, rejected: int) -> str:
    """The budget of attempts is spent."""
    return (
        f"{method.name} spent its budget of solver.max_steps={method.max_steps} at t={t:.6g} ({accepted} accepted, "
        f"{rejected} rejected, step now {step:.1e}); try {_implicit(method)}a looser tolerance, a larger "
        "solver.max_steps, or a smaller optimizer.lr"
    )


def unheard(engine: str) -> str:
    """Why an engine that keeps its steps to itself cannot serve a field that is to hear of them."""
    return f"engine={engine} hands out no steps, which this regulariser looks at"


def imprecise(engine: str, y0: Tensor) -> str | None:
    """Why an engine that computes in float32 and float64 alone cannot serve a state, or None."""
    if y0.dtype in (torch.float32, torch.float64):
        return None
    return f"engine={engine} computes in float32 and float64, and the state is {str(y0.dtype).removeprefix('torch.')}"


def unstored(engine: str, adjoint: str) -> str | None:
    """Why an engine that keeps no accepted states has no adjoint=checkpoint, or None where that is not asked for."""
    if adjoint != "checkpoint":
        return None
    return f"engine={engine} keeps no accepted states for adjoint=checkpoint: use adjoint=off or on"


def _implicit(method: Method) -> str:
    """The method for stiff fields, where it is not the one that gave up."""
    return "" if method.implicit is not None else "solver=radau5 for a stiff field, "
