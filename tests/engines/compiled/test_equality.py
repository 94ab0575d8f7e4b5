"""The compiled engine against torchdiffeq, in float64 with the same first step: values, gradients, costs."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from node_runner.adjoints import ADJOINTS
from node_runner.engines.compiled.engine import CompiledEngine
from node_runner.engines.compiled.inductor import missing
from node_runner.fields.concatsquash import ConcatSquash
from node_runner.fields.conv import Conv
from node_runner.fields.mlp import MLP
from node_runner.models.dynamics import Hutchinson, Shifted, Widened, divergence_exact, leading_norm
from node_runner.regularisers.jacobian import Jacobian
from node_runner.regularisers.kinetic import Kinetic
from node_runner.settings import Activation, Interpolation, ToleranceConfig
from node_runner.solving import Solve, Tolerances
from node_runner.types import Engine, Method, Norm, SolveStats
from tests.problems import METHODS, differentiable, has_option, make_method


DIM = 3
FORWARD = torch.linspace(0, 2, 7, dtype=torch.float64)
TIMES = {"forward": FORWARD, "backward": FORWARD.flip(0)}
ADJOINTS_SERVED = ("off", "checkpoint", "on", "seminorm")
ADAPTIVE = [name for name, method in METHODS.items() if method.tableau is not None and method.adaptive]
FIXED = [name for name, method in METHODS.items() if method.tableau is not None and not method.adaptive]

compiles = pytest.mark.skipif(missing("cpu") is not None, reason=str(missing("cpu")))


def scaled(field: nn.Module) -> nn.Module:
    """Steep enough for steps to be rejected."""
    for parameter in field.parameters():
        parameter.data.mul_(1.5)
    return field


def mlp() -> nn.Module:
    return scaled(MLP((DIM,), width=6, depth=1, activation=Activation.tanh, time_dependent=True).double())


def images() -> nn.Module:
    return Conv((4, 3, 3), activation=Activation.tanh).double()


def widened(*names: str, field: nn.Module | None = None) -> Widened:
    """A field with integrals beside its state, by name."""
    y = torch.zeros(5, DIM, dtype=torch.float64)
    made = {
        "exact": lambda: divergence_exact,
        "hutchinson": lambda: Hutchinson(torch.randn(5, DIM, dtype=torch.float64)),
        "kinetic": lambda: Kinetic().begin(y),
        "jacobian": lambda: Jacobian().begin(y),
    }
    return Widened(field or mlp(), (DIM,), [made[name]() for name in names])


class Answer(NamedTuple):
    ys: Tensor
    gradient: Tensor
    stats: SolveStats


def answer(
    engine: Engine | None, method: Method, adjoint: str, field: nn.Module, shape: tuple[int, ...], ts: Tensor,
    norm: Norm | None = None,
) -> Answer:  # fmt: skip
    """Values, the gradient of an uneven loss by y0 and all parameters, and the cost. None is torchdiffeq."""
    generator = torch.Generator().manual_seed(5)
    y0 = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.randn(len(ts), *shape, generator=generator, dtype=torch.float64)
    tolerance = {"rtol": 1e-4, "atol": 1e-5}
    if engine is None:
        solve = differentiable(method, "off" if adjoint == "checkpoint" else adjoint, **tolerance)
    else:
        solve = Solve(engine, method, ADJOINTS.get(adjoint)(), Tolerances(ToleranceConfig(**tolerance)))
    solution = solve(field, y0, ts, norm=norm)
    gradients = torch.autograd.grad((solution.ys - target).square().mean(), [y0, *field.parameters()])
    return Answer(solution.ys.detach(), torch.cat([g.reshape(-1) for g in gradients]), solution.stats)


def assert_equal_to_torchdiffeq(
    field: nn.Module, shape: tuple[int, ...] = (5, DIM), *, ts: Tensor = FORWARD, adjoint: str = "off",
    name: str = "dopri5", engine: Engine | None = None, norm: Norm | None = None, **options: object,
) -> None:  # fmt: skip
    """Everything but the evaluations that adjoint=checkpoint repeats, which torchdiffeq does not have."""
    if has_option(name, "first_step"):
        options["first_step"] = 0.1
    method = make_method(name, **options)
    ours = answer(engine or CompiledEngine.uncompiled(), method, adjoint, field, shape, ts, norm)
    theirs = answer(None, method, adjoint, field, shape, ts, norm)
    torch.testing.assert_close(ours.ys, theirs.ys, rtol=1e-10, atol=1e-10)
    # The error estimate of dopri8 is so small beside its terms that their rounding moves the step.
    tolerance = 1e-6 if name == "dopri8" and adjoint in ("on", "seminorm") else 1e-10
    assert float((ours.gradient - theirs.gradient).norm() / theirs.gradient.norm()) < tolerance
    mine, other = ours.stats, theirs.stats
    assert (mine.nfe_forward, mine.accepted, mine.rejected) == (other.nfe_forward, other.accepted, other.rejected)
    assert (mine.accepted_backward, mine.rejected_backward) == (other.accepted_backward, other.rejected_backward)
    if adjoint == "checkpoint" or (adjoint == "off" and mine.nfe_backward):  # a loop computes its steps again
        assert 0 < mine.nfe_backward <= mine.nfe_forward
    else:
        assert mine.nfe_backward == other.nfe_backward


# --- the steps as they are written ------------------------------------------------------------------


WALKS = {
    "step-by-step": {"loop_up_to": 0},
    "loops": {"at_once_up_to": 0},
    "at-once": {"at_once_up_to": 100},
}
"""Settings of the engine for each way through an adaptive solve."""


@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("adjoint", ADJOINTS_SERVED)
@pytest.mark.parametrize("name", ADAPTIVE)
def test_adaptive_methods(name: str, adjoint: str, times: str, walk: str):
    if walk == "at-once" and adjoint != "off":
        pytest.skip("the forward solve of loops, and for checkpoint the same gradient")
    engine = CompiledEngine.uncompiled(**WALKS[walk])
    assert_equal_to_torchdiffeq(mlp(), ts=TIMES[times], adjoint=adjoint, name=name, engine=engine)


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize(
    "options",
    [{}, {"step_size": 0.15}, {"step_size": 0.15, "interp": Interpolation.cubic}, {"perturb": True}],
    ids=["a-step-an-output", "step-size", "cubic", "perturbed"],
)
@pytest.mark.parametrize("adjoint", ADJOINTS_SERVED[:3])
@pytest.mark.parametrize("name", FIXED)
def test_fixed_steps(name: str, adjoint: str, options: dict[str, object], times: str):
    assert_equal_to_torchdiffeq(mlp(), ts=TIMES[times], adjoint=adjoint, name=name, **options)


@pytest.mark.parametrize(
    "options", [{"max_step": 0.07}, {"min_step": 0.3}, {"safety": 0.7, "ifactor": 2.0, "dfactor": 0.5}], ids=str
)
@pytest.mark.parametrize("adjoint", ADJOINTS_SERVED)
def test_options_of_the_step_control(adjoint: str, options: dict[str, object]):
    assert_equal_to_torchdiffeq(mlp(), adjoint=adjoint, **options)


@pytest.mark.parametrize("times", [torch.linspace(0, 3, 200, dtype=torch.float64), FORWARD[:2]], ids=["many", "two"])
@pytest.mark.parametrize("adjoint", ADJOINTS_SERVED[:2])
def test_any_number_of_output_times(adjoint: str, times: Tensor):
    assert_equal_to_torchdiffeq(mlp(), ts=times, adjoint=adjoint)
    assert_equal_to_torchdiffeq(mlp(), ts=times, adjoint=adjoint, name="rk4", step_size=0.05)


@pytest.mark.parametrize("adjoint", ADJOINTS_SERVED)
@pytest.mark.parametrize("integrals", [("exact",), ("hutchinson",), ("hutchinson", "kinetic", "jacobian")], ids=str)
def test_integrals_that_differentiate_the_field(integrals: tuple[str, ...], adjoint: str):
    wide = widened(*integrals, field=scaled(ConcatSquash((DIM,), width=5, depth=1).double()))
    norm = leading_norm(DIM + 1) if len(integrals) > 1 else None
    assert_equal_to_torchdiffeq(wide, (5, DIM + len(integrals)), adjoint=adjoint, norm=norm)


@pytest.mark.parametrize("adjoint", ADJOINTS_SERVED)
def test_images_and_samples_that_start_at_times_of_their_own(adjoint: str):
    start = torch.linspace(0, 1, 2, dtype=torch.float64)
    assert_equal_to_torchdiffeq(Shifted(images(), start), (2, 4, 3, 3), ts=FORWARD[:3], adjoint=adjoint)


def test_the_first_step_is_torchdiffeq_s():
    # Its gradient differs: torchdiffeq differentiates its estimate of the first step.
    engine, method = CompiledEngine.uncompiled(), make_method("dopri5")
    field = mlp()
    ours, theirs = (answer(e, method, "on", field, (5, DIM), FORWARD) for e in (engine, None))
    torch.testing.assert_close(ours.ys, theirs.ys, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(ours.gradient, theirs.gradient, rtol=1e-8, atol=1e-10)
    assert ours.stats.nfe_forward == theirs.stats.nfe_forward
    assert ours.stats.nfe_backward == theirs.stats.nfe_backward


def test_a_tensor_in_a_closure_gets_its_gradient():
    weight = torch.randn(DIM, DIM, dtype=torch.float64, requires_grad=True)
    y0 = torch.randn(2, DIM, dtype=torch.float64, requires_grad=True)
    found = []
    for engine in ("compiled", "torchdiffeq"):
        solve = differentiable(make_method("dopri5", first_step=0.1), "off", engine=engine)
        ys = solve(lambda t, y: torch.tanh(y @ weight) * torch.cos(t), y0, FORWARD).ys
        found.append(torch.autograd.grad(ys.sin().sum(), [weight, y0]))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


# --- compiled -----------------------------------------------------------------------------------------


@compiles
@pytest.mark.slow
def test_a_compiled_network():
    assert_equal_to_torchdiffeq(mlp(), engine=CompiledEngine())


@compiles
@pytest.mark.slow
def test_compiled_fixed_steps_that_are_computed_again():
    assert_equal_to_torchdiffeq(mlp(), name="midpoint", adjoint="checkpoint", engine=CompiledEngine())


@compiles
@pytest.mark.slow
def test_compiled_convolutions():
    assert_equal_to_torchdiffeq(images(), (2, 4, 3, 3), ts=FORWARD[:3], name="midpoint", engine=CompiledEngine())


@compiles
@pytest.mark.slow
@pytest.mark.parametrize("adjoint", ["off", "on"])
def test_compiled_flows_draw_new_noise_for_every_solve_and_are_compiled_once(adjoint: str):
    engine = CompiledEngine()
    spent = []
    for _ in range(2):  # the second time with other weights and other noise
        field = scaled(MLP((DIM,), width=6, depth=1, activation=Activation.tanh).double())
        wide = widened("hutchinson", field=field)
        assert_equal_to_torchdiffeq(wide, (5, DIM + 1), name="bosh3", adjoint=adjoint, engine=engine)
        spent.append(engine.compile_seconds)
    assert spent[0] == spent[1]
