"""An engine of ours against torchdiffeq, in float64 with the same first step: values, gradients, steps, evaluations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from node_runner.adjoints import ADJOINTS
from node_runner.settings import Interpolation, ToleranceConfig
from node_runner.solving import Solve, Tolerances
from node_runner.types import Engine, Method, Norm, SolveStats
from tests.problems import engine_named, has_option, make_method


DIM = 3
FORWARD = torch.linspace(0, 2, 7, dtype=torch.float64)
TIMES = {"forward": FORWARD, "backward": FORWARD.flip(0)}
GRADIENTS = ("off", "checkpoint", "on", "seminorm")

GRIDS = pytest.mark.parametrize(
    "options",
    [{}, {"step_size": 0.15}, {"step_size": 0.15, "interp": Interpolation.cubic}, {"perturb": True}],
    ids=["a-step-an-output", "step-size", "cubic", "perturbed"],
)
CONTROLS = pytest.mark.parametrize(
    "options", [{"max_step": 0.07}, {"min_step": 0.3}, {"safety": 0.7, "ifactor": 2.0, "dfactor": 0.5}], ids=str
)


def scaled(field: nn.Module) -> nn.Module:
    """Steep enough for steps to be rejected."""
    for parameter in field.parameters():
        parameter.data.mul_(1.5)
    return field


class Answer(NamedTuple):
    ys: Tensor
    gradient: Tensor
    stats: SolveStats


def answer(
    engine: Engine, method: Method, adjoint: str, field: nn.Module, shape: tuple[int, ...], ts: Tensor = FORWARD,
    norm: Norm | None = None,
) -> Answer:  # fmt: skip
    """Values, the gradient of an uneven loss by y0 and all parameters, and the cost."""
    generator = torch.Generator().manual_seed(5)
    y0 = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.randn(len(ts), *shape, generator=generator, dtype=torch.float64)
    tolerances = Tolerances(ToleranceConfig(rtol=1e-4, atol=1e-5))
    solution = Solve(engine, method, ADJOINTS.get(adjoint)(), tolerances)(field, y0, ts, norm=norm)
    gradients = torch.autograd.grad((solution.ys - target).square().mean(), [y0, *field.parameters()])
    return Answer(solution.ys.detach(), torch.cat([g.reshape(-1) for g in gradients]), solution.stats)


def assert_equal_to_torchdiffeq(
    engine: Engine, field: nn.Module, shape: tuple[int, ...] = (5, DIM), *, ts: Tensor = FORWARD, adjoint: str = "off",
    name: str = "dopri5", norm: Norm | None = None, known_slopes: bool = False, **options: object,
) -> None:  # fmt: skip
    """Everything but the evaluations that adjoint=checkpoint repeats, which torchdiffeq does not have.

    known_slopes: the engine evaluates no slope at the end of an interval for its cubic, as torchdiffeq does although
    the backward solve knows the state there without it.
    """
    if has_option(name, "first_step"):
        options["first_step"] = 0.1
    method = make_method(name, **options)
    # adjoint=checkpoint is another way to the gradient of adjoint=off.
    reference = "off" if adjoint == "checkpoint" else adjoint
    ours = answer(engine, method, adjoint, field, shape, ts, norm)
    theirs = answer(engine_named("torchdiffeq"), method, reference, field, shape, ts, norm)
    torch.testing.assert_close(ours.ys, theirs.ys, rtol=1e-10, atol=1e-10)
    # The error estimate of dopri8 is so small beside its terms that their rounding moves the step: torchdiffeq's own
    # gradient differs by 1e-8 when the samples of the batch are put in another order.
    tolerance = 1e-6 if name == "dopri8" and adjoint in ("on", "seminorm") else 1e-10
    assert float((ours.gradient - theirs.gradient).norm() / theirs.gradient.norm()) < tolerance
    mine, other = ours.stats, theirs.stats
    assert (mine.nfe_forward, mine.accepted, mine.rejected) == (other.nfe_forward, other.accepted, other.rejected)
    assert (mine.accepted_backward, mine.rejected_backward) == (other.accepted_backward, other.rejected_backward)
    looped = engine.name == "compiled" and adjoint == "off" and mine.nfe_backward > 0  # a loop computes its steps again
    if adjoint == "checkpoint" or looped:
        assert 0 < mine.nfe_backward <= mine.nfe_forward  # the accepted steps once more
        return
    saved = len(ts) - 1 if known_slopes and options.get("interp") is Interpolation.cubic and adjoint != "off" else 0
    assert mine.nfe_backward == other.nfe_backward - saved


def assert_finite_differences_agree(loss: Callable[[], Tensor], tensors: Sequence[Tensor], every: int) -> None:
    """The gradient of a loss by every so many numbers of some tensors, against central differences."""
    for tensor, gradient in zip(tensors, torch.autograd.grad(loss(), tensors), strict=True):
        with torch.no_grad():
            flat = tensor.view(-1)
            for i in range(0, len(flat), every):
                before, ends = float(flat[i]), []
                for step in (1e-6, -1e-6):
                    flat[i] = before + step
                    ends.append(float(loss()))
                flat[i] = before
                numeric = (ends[0] - ends[1]) / 2e-6
                assert float(gradient.reshape(-1)[i]) == pytest.approx(numeric, rel=1e-6, abs=1e-8)
