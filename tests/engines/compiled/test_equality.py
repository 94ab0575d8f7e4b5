"""The compiled engine against torchdiffeq."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from node_runner.engines.compiled.engine import CompiledEngine
from node_runner.engines.compiled.inductor import missing
from node_runner.fields.concatsquash import ConcatSquash
from node_runner.fields.conv import Conv
from node_runner.fields.mlp import MLP
from node_runner.models.dynamics import Hutchinson, Shifted, Widened, divergence_exact, leading_norm
from node_runner.regularisers.jacobian import Jacobian
from node_runner.regularisers.kinetic import Kinetic
from node_runner.settings import Activation
from tests.engines.equality import (
    CONTROLS,
    DIM,
    FORWARD,
    GRADIENTS,
    GRIDS,
    TIMES,
    answer,
    assert_equal_to_torchdiffeq,
    scaled,
)
from tests.problems import METHODS, differentiable, engine_named, make_method


ADAPTIVE = [name for name, method in METHODS.items() if method.tableau is not None and method.adaptive]
FIXED = [name for name, method in METHODS.items() if method.tableau is not None and not method.adaptive]

compiles = pytest.mark.skipif(missing("cpu") is not None, reason=str(missing("cpu")))


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


def equal(
    field: nn.Module, shape: tuple[int, ...] = (5, DIM), *, engine: CompiledEngine | None = None, **setting: Any
) -> None:
    assert_equal_to_torchdiffeq(engine or CompiledEngine.uncompiled(), field, shape, **setting)


# --- the steps as they are written ------------------------------------------------------------------


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("adjoint", GRADIENTS)
@pytest.mark.parametrize("name", ADAPTIVE)
def test_adaptive_methods(name: str, adjoint: str, times: str):
    equal(mlp(), ts=TIMES[times], adjoint=adjoint, name=name)


@pytest.mark.parametrize("times", TIMES)
@GRIDS
@pytest.mark.parametrize("adjoint", GRADIENTS[:3])
@pytest.mark.parametrize("name", FIXED)
def test_fixed_steps(name: str, adjoint: str, options: dict[str, object], times: str):
    equal(mlp(), ts=TIMES[times], adjoint=adjoint, name=name, **options)


@CONTROLS
@pytest.mark.parametrize("adjoint", GRADIENTS)
def test_options_of_the_step_control(adjoint: str, options: dict[str, object]):
    equal(mlp(), adjoint=adjoint, **options)


@pytest.mark.parametrize("times", [torch.linspace(0, 3, 200, dtype=torch.float64), FORWARD[:2]], ids=["many", "two"])
@pytest.mark.parametrize("adjoint", GRADIENTS[:2])
def test_any_number_of_output_times(adjoint: str, times: Tensor):
    equal(mlp(), ts=times, adjoint=adjoint)
    equal(mlp(), ts=times, adjoint=adjoint, name="rk4", step_size=0.05)


@pytest.mark.parametrize("adjoint", GRADIENTS)
@pytest.mark.parametrize("integrals", [("exact",), ("hutchinson",), ("hutchinson", "kinetic", "jacobian")], ids=str)
def test_integrals_that_differentiate_the_field(integrals: tuple[str, ...], adjoint: str):
    wide = widened(*integrals, field=scaled(ConcatSquash((DIM,), width=5, depth=1).double()))
    norm = leading_norm(DIM + 1) if len(integrals) > 1 else None
    equal(wide, (5, DIM + len(integrals)), adjoint=adjoint, norm=norm)


@pytest.mark.parametrize("adjoint", GRADIENTS)
def test_images_and_samples_that_start_at_times_of_their_own(adjoint: str):
    start = torch.linspace(0, 1, 2, dtype=torch.float64)
    equal(Shifted(images(), start), (2, 4, 3, 3), ts=FORWARD[:3], adjoint=adjoint)


def test_the_first_step_is_torchdiffeq_s():
    # Its gradient differs: torchdiffeq differentiates its estimate of the first step.
    engines, method = (CompiledEngine.uncompiled(), engine_named("torchdiffeq")), make_method("dopri5")
    field = mlp()
    ours, theirs = (answer(e, method, "on", field, (5, DIM)) for e in engines)
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
    equal(mlp(), engine=CompiledEngine())


@compiles
@pytest.mark.slow
def test_compiled_fixed_steps_that_are_computed_again():
    equal(mlp(), name="midpoint", adjoint="checkpoint", engine=CompiledEngine())


@compiles
@pytest.mark.slow
def test_compiled_convolutions():
    equal(images(), (2, 4, 3, 3), ts=FORWARD[:3], name="midpoint", engine=CompiledEngine())


@compiles
@pytest.mark.slow
@pytest.mark.parametrize("adjoint", ["off", "on"])
def test_compiled_flows_draw_new_noise_for_every_solve_and_are_compiled_once(adjoint: str):
    engine = CompiledEngine()
    spent = []
    for _ in range(2):  # the second time with other weights and other noise
        field = scaled(MLP((DIM,), width=6, depth=1, activation=Activation.tanh).double())
        wide = widened("hutchinson", field=field)
        equal(wide, (5, DIM + 1), name="bosh3", adjoint=adjoint, engine=engine)
        spent.append(engine.compile_seconds)
    assert spent[0] == spent[1]
