"""The native engine against torchdiffeq."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from node_runner.engines.compiler import compiler
from node_runner.fields.concatsquash import ConcatSquash
from node_runner.fields.mlp import MLP
from node_runner.learning import Integrand
from node_runner.models.parts.dynamics import Hutchinson, LeadingNorm, Shifted, Widened, divergence_exact
from node_runner.models.second_order import Motion
from node_runner.regularisers.jacobian import Norm
from node_runner.regularisers.kinetic import Energy
from node_runner.settings import Activation, Interpolation
from tests.engines.equality import (
    CONTROLS,
    DIM,
    FORWARD,
    GRADIENTS,
    GRIDS,
    TIMES,
    answer,
    assert_equal_to_torchdiffeq,
    assert_finite_differences_agree,
    scaled,
)
from tests.problems import differentiable, engine_named, make_method


pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler")
as_shipped = pytest.mark.usefixtures("as_shipped")

ADAPTIVE = ("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun")
FIXED = ("euler", "midpoint", "heun2", "heun3", "rk4")


def mlp(activation: Activation = Activation.tanh, *, time_dependent: bool = True, power: int = 1) -> MLP:
    """A field that is steep enough for steps to be rejected."""
    field = MLP((DIM,), width=6, depth=1, activation=activation, time_dependent=time_dependent, power=power)
    return scaled(field.double())


def gated() -> ConcatSquash:
    return scaled(ConcatSquash((DIM,), width=5, depth=2, activation=Activation.tanh).double())


def with_divergence(field: nn.Module, batch: int, exact: bool) -> Widened:
    noise = torch.randn(batch, DIM, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return Widened(field, (DIM,), [divergence_exact if exact else Hutchinson(noise)])


def equal(field: nn.Module, columns: int = DIM, *, batch: int = 5, **setting: Any) -> None:
    assert_equal_to_torchdiffeq(engine_named("native"), field, (batch, columns), known_slopes=True, **setting)


@as_shipped
@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("adjoint", GRADIENTS)
@pytest.mark.parametrize("name", ADAPTIVE)
def test_adaptive_methods(name: str, adjoint: str, times: str):
    equal(mlp(), ts=TIMES[times], adjoint=adjoint, name=name)


@as_shipped
@pytest.mark.parametrize("times", TIMES)
@GRIDS
@pytest.mark.parametrize("adjoint", GRADIENTS[:3])
@pytest.mark.parametrize("name", FIXED)
def test_fixed_steps(name: str, adjoint: str, options: dict[str, object], times: str):
    equal(mlp(), ts=TIMES[times], adjoint=adjoint, name=name, **options)


@as_shipped
@CONTROLS
@pytest.mark.parametrize("adjoint", GRADIENTS)
def test_options_of_the_step_control(adjoint: str, options: dict[str, object]):
    equal(mlp(), adjoint=adjoint, **options)


@pytest.mark.parametrize("activation", Activation)
def test_activations_and_their_two_derivatives(activation: Activation):
    # The gradient of a divergence needs the second one.
    field = mlp(activation, time_dependent=False)
    equal(with_divergence(field, 5, exact=True), DIM + 1)


@pytest.mark.parametrize("adjoint", GRADIENTS)
@pytest.mark.parametrize("exact", [True, False], ids=["exact", "hutchinson"])
def test_gated_layers_with_divergence(exact: bool, adjoint: str):
    equal(with_divergence(gated(), 5, exact), DIM + 1, adjoint=adjoint)


@as_shipped
@pytest.mark.parametrize("adjoint", GRADIENTS)
def test_samples_that_start_at_times_of_their_own(adjoint: str):
    start = torch.linspace(0, 1, 5, dtype=torch.float64)
    equal(Shifted(mlp(), start), adjoint=adjoint)


@as_shipped
@pytest.mark.parametrize("adjoint", GRADIENTS[:2])
def test_many_outputs_in_a_step(adjoint: str):
    ts = torch.linspace(0, 2, 50, dtype=torch.float64)
    equal(mlp(), ts=ts, adjoint=adjoint)
    equal(mlp(), ts=ts, adjoint=adjoint, name="rk4", step_size=0.15, interp=Interpolation.cubic)


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("adjoint", GRADIENTS)
def test_the_cube_of_the_state(adjoint: str, times: str):
    equal(mlp(power=3), ts=TIMES[times], adjoint=adjoint)


class Affine(nn.Module):
    """A multiple of a network, and of the state."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return -0.7 * self.net(y) - 0.3 * y


def affine(width: int = 6) -> nn.Module:
    torch.manual_seed(0)
    field = Affine(nn.Sequential(nn.Linear(DIM, width), nn.SiLU(), nn.Linear(width, DIM), nn.Tanh()))
    if width > 6:  # units in the lanes of a vector
        field.net = field.net[:3]
    return scaled(field.double())


@pytest.mark.parametrize("adjoint", GRADIENTS)
@pytest.mark.parametrize(("width", "batch"), [(6, 5), (64, 1)], ids=["samples", "units"])
def test_multiples_of_a_network_and_of_the_state(width: int, batch: int, adjoint: str):
    equal(affine(width), batch=batch, adjoint=adjoint)


@pytest.mark.parametrize("adjoint", GRADIENTS[:3])
def test_multiples_of_a_network_and_of_the_state_in_fixed_steps(adjoint: str):
    equal(affine(), adjoint=adjoint, name="rk4", step_size=0.1)


@pytest.mark.parametrize(("power", "batch"), [(2, 1), (4, 1), (5, 37)])
def test_other_powers_of_the_state(power: int, batch: int):
    # Not steep: the fourth power is, and its step sizes would feel the rounding of torch's own pow.
    equal(MLP((DIM,), width=6, depth=1, activation=Activation.tanh, power=power).double(), batch=batch)


@pytest.mark.parametrize("adjoint", ["off", "on"])
def test_a_power_in_other_company(adjoint: str):
    cube = mlp(power=3)
    equal(cube, adjoint=adjoint, name="rk4", step_size=0.15, interp=Interpolation.cubic)
    equal(Shifted(cube, torch.linspace(0, 1, 5, dtype=torch.float64)), adjoint=adjoint)
    equal(Widened(cube, (DIM,), [KINETIC]), DIM + 1, adjoint=adjoint, norm=LeadingNorm(DIM))
    equal(motion(scaled(MLP((4,), 2, width=6, activation=Activation.tanh, power=3))), 4, adjoint=adjoint)


@as_shipped
@pytest.mark.parametrize("adjoint", GRADIENTS)
@pytest.mark.parametrize("batch", [1, 2, 8, 9, 37, 64, 100])
def test_every_size_of_batch(batch: int, adjoint: str):
    # Of float64: vectors of two, four and eight samples, half empty ones, tiles of one and of four vectors.
    if batch in (1, 2, 37) or adjoint in ("off", "on"):
        equal(mlp(), batch=batch, adjoint=adjoint)


def wide(activation: Activation = Activation.tanh, **settings: Any) -> MLP:
    """A layer of which fills vectors, so that its units are in their lanes."""
    field = MLP((DIM,), width=36, depth=2, activation=activation, **settings).double()
    return scaled(field)


@as_shipped
@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("adjoint", GRADIENTS)
@pytest.mark.parametrize("batch", [1, 4])
def test_few_samples_of_a_wide_field(batch: int, adjoint: str, times: str):
    equal(wide(time_dependent=True), batch=batch, ts=TIMES[times], adjoint=adjoint)


@as_shipped
@GRIDS
@pytest.mark.parametrize("adjoint", GRADIENTS[:3])
def test_few_samples_of_a_wide_field_in_fixed_steps(adjoint: str, options: dict[str, object]):
    equal(wide(time_dependent=True), batch=2, adjoint=adjoint, name="rk4", **options)


@as_shipped
def test_few_samples_of_a_wide_field_that_sees_a_power_or_starts_at_times_of_its_own():
    equal(wide(Activation.silu, power=2), batch=1)
    equal(Shifted(wide(time_dependent=True), torch.linspace(0, 1, 3, dtype=torch.float64)), batch=3)


@as_shipped
def test_lanes_that_hold_no_number_of_the_state_have_no_part_in_its_error():
    # Without an absolute tolerance their error is 0/0.
    field, y0, method = wide(time_dependent=True), torch.ones(1, DIM, dtype=torch.float64), make_method("dopri5")
    with torch.no_grad():
        ours, theirs = (
            engine_named(name).integrate(method, field, y0, FORWARD, rtol=1e-4, atol=0.0, norm=None)
            for name in ("native", "torchdiffeq")
        )
    torch.testing.assert_close(ours.ys, theirs.ys, rtol=1e-10, atol=1e-10)


@as_shipped
def test_a_sample_s_result_does_not_depend_on_the_vector_that_it_is_in():
    # Fixed steps: adaptive ones are chosen for the whole batch.
    field, method = mlp(), make_method("rk4", step_size=0.1)
    y0 = torch.randn(40, DIM, dtype=torch.float64)
    solve = differentiable(method, engine="native")
    with torch.no_grad():
        together = solve(field, y0, FORWARD).ys
    alone = torch.cat([solve(field, part, FORWARD).ys for part in y0.split(1)], dim=1)
    torch.testing.assert_close(together, alone, rtol=1e-14, atol=1e-14)


@as_shipped
@pytest.mark.parametrize("adjoint", GRADIENTS)
def test_threads_share_the_samples_and_change_nothing_but_the_order_of_sums(adjoint: str):
    field, answers = mlp(), []
    for threads in (1, 2, 2):
        torch.set_num_threads(threads)
        answers.append(
            answer(engine_named("native"), make_method("dopri5", first_step=0.1), adjoint, field, (100, DIM))
        )
    one, two, again = answers
    assert torch.equal(one.ys, two.ys)
    torch.testing.assert_close(two.gradient, one.gradient, rtol=1e-12, atol=1e-14)
    assert torch.equal(two.gradient, again.gradient)


@as_shipped
@pytest.mark.parametrize("power", [1, 5])
def test_float32_is_float64_to_its_own_precision(power: int):
    field = mlp(Activation.silu if power == 1 else Activation.tanh, time_dependent=False, power=power)
    y0 = torch.randn(64, DIM, dtype=torch.float64)
    method = make_method("rk4", step_size=0.1)
    double = differentiable(method, engine="native")(field, y0, FORWARD).ys.square().mean()
    wanted = torch.autograd.grad(double, list(field.parameters()))
    field.float()
    single = differentiable(method, engine="native")(field, y0.float(), FORWARD.float()).ys.square().mean()
    torch.testing.assert_close(single.double(), double, rtol=1e-6, atol=0)
    for mine, exact in zip(torch.autograd.grad(single, list(field.parameters())), wanted, strict=True):
        torch.testing.assert_close(mine.double(), exact, rtol=0, atol=2e-6 * float(exact.abs().max()))


@as_shipped
@pytest.mark.parametrize("power", [1, 3])
def test_gradients_agree_with_finite_differences(power: int):
    # All steps of one size, so that the step control has no part in it.
    field = mlp(power=power)
    solve = differentiable(make_method("dopri5", first_step=0.5, min_step=0.5, max_step=0.5), engine="native")
    y0 = torch.randn(2, DIM, dtype=torch.float64, requires_grad=True)

    def loss() -> Tensor:
        return solve(field, y0, FORWARD).ys.sin().sum()

    assert_finite_differences_agree(loss, [y0, *field.parameters()], every=3)


KINETIC, JACOBIAN = Energy(), Norm()
PROBE = Hutchinson(torch.linspace(-1, 1, 5 * DIM, dtype=torch.float64).view(5, DIM))


@as_shipped
@pytest.mark.parametrize("adjoint", GRADIENTS)
def test_penalties_beside_the_state(adjoint: str):
    field = Widened(mlp(), (DIM,), [divergence_exact, KINETIC, JACOBIAN])
    equal(field, DIM + 3, adjoint=adjoint, norm=LeadingNorm(DIM + 1))


@pytest.mark.parametrize(
    ("field", "integrands", "adjoint"),
    [
        (mlp(), [KINETIC], "off"),
        (mlp(Activation.silu), [JACOBIAN], "off"),
        (gated(), [JACOBIAN, divergence_exact], "on"),
        (gated(), [PROBE, KINETIC], "off"),
    ],
    ids=["kinetic", "jacobian", "jacobian-divergence", "estimate-kinetic"],
)
def test_penalties_in_other_company(field: nn.Module, integrands: list[Integrand], adjoint: str):
    wide = Widened(field, (DIM,), integrands)
    equal(wide, DIM + len(integrands), ts=TIMES["backward"], adjoint=adjoint, norm=LeadingNorm(DIM))


def motion(network: nn.Module) -> Motion:
    return Motion(network, torch.tensor([0.7, 1.3]), torch.tensor([0.1, -0.2])).double()


def accelerating(activation: Activation = Activation.tanh) -> Motion:
    return motion(scaled(MLP((4,), 2, width=6, depth=2, activation=activation, time_dependent=True)))


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("adjoint", GRADIENTS)
@pytest.mark.parametrize("name", ["dopri5", "adaptive_heun"])
def test_velocities_that_move_positions(name: str, adjoint: str, times: str):
    equal(accelerating(), 4, ts=TIMES[times], adjoint=adjoint, name=name)


@pytest.mark.parametrize("adjoint", ["off", "on"])
def test_positions_that_start_at_times_of_their_own(adjoint: str):
    equal(Shifted(accelerating(), torch.linspace(0, 1, 5, dtype=torch.float64)), 4, adjoint=adjoint)


@pytest.mark.parametrize("adjoint", ["off", "on"])
def test_motion_in_other_company(adjoint: str):
    equal(accelerating(Activation.silu), 4, adjoint=adjoint, name="rk4", batch=37, step_size=0.15)
    equal(motion(ConcatSquash((4,), 2, width=5, depth=1)), 4, adjoint=adjoint)
    equal(Motion(MLP((2,), 1, width=4).double()).double(), 2, adjoint=adjoint, batch=1)
