"""Steps of each sample's own in the native engine: equal to those of engine=lanes, which is plain PyTorch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from node_runner.engines.compiler import compiler
from node_runner.errors import SolveFailed
from node_runner.models.parts.dynamics import LeadingNorm, Shifted, Widened, divergence_exact
from node_runner.regularisers.jacobian import Norm
from node_runner.regularisers.kinetic import Energy
from node_runner.settings import Activation, Batching
from tests.engines.equality import DIM, FORWARD, TIMES, Answer, answer
from tests.engines.native.test_equality import accelerating, affine, gated, mlp, with_divergence
from tests.engines.native.test_rules import steep
from tests.problems import differentiable, engine_named, make_method


pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler")
as_shipped = pytest.mark.usefixtures("as_shipped")


def assert_equal_to_lanes(
    field: nn.Module, *, columns: int = DIM, batch: int = 37, ts: Tensor = FORWARD, adjoint: str = "off",
    name: str = "dopri5", norm: LeadingNorm | None = None, **options: object,
) -> Answer:  # fmt: skip
    method = make_method(name, batching=Batching.per_sample, **options)
    ours = answer(engine_named("native"), method, adjoint, field, (batch, columns), ts, norm)
    reference = "off" if adjoint == "checkpoint" else adjoint
    theirs = answer(engine_named("lanes"), method, reference, field, (batch, columns), ts, norm)
    mine, other = ours.stats, theirs.stats
    assert (mine.nfe_forward, mine.accepted, mine.rejected) == (other.nfe_forward, other.accepted, other.rejected)
    assert mine.steps_of_samples is not None and other.steps_of_samples is not None
    assert torch.equal(mine.steps_of_samples, other.steps_of_samples)
    # The error estimate of dopri8 is so small beside its terms that their rounding moves the step.
    values, gradients = (1e-6, 1e-7) if name == "dopri8" else (1e-10, 1e-10)
    torch.testing.assert_close(ours.ys, theirs.ys, rtol=values, atol=values)
    assert float((ours.gradient - theirs.gradient).norm() / theirs.gradient.norm()) < gradients
    return ours


@as_shipped
@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("adjoint", ["off", "checkpoint", "on", "seminorm"])
@pytest.mark.parametrize("name", ["dopri5", "dopri8", "bosh3", "fehlberg2"])
def test_methods_and_gradients(name: str, adjoint: str, times: str):
    ours = assert_equal_to_lanes(mlp(), name=name, adjoint=adjoint, ts=TIMES[times])
    steps = ours.stats.steps_of_samples
    assert steps is not None
    assert name == "dopri8" or len(set(steps[0].tolist())) > 1  # lanes took different numbers of steps


@as_shipped
@pytest.mark.parametrize("batch", [1, 2, 9, 100])
def test_every_size_of_batch(batch: int):
    assert_equal_to_lanes(mlp(), batch=batch)


@pytest.mark.parametrize("activation", [Activation.softplus, Activation.relu])
def test_other_activations(activation: Activation):
    assert_equal_to_lanes(mlp(activation), first_step=0.7)


@pytest.mark.parametrize("adjoint", ["off", "checkpoint", "on"])
def test_a_power_of_the_state(adjoint: str):
    assert_equal_to_lanes(mlp(power=3), adjoint=adjoint)


@pytest.mark.parametrize("adjoint", ["off", "checkpoint", "on"])
def test_multiples_of_a_network_and_of_the_state(adjoint: str):
    assert_equal_to_lanes(affine(), adjoint=adjoint)


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "hutchinson"])
def test_the_divergence(exact: bool):
    assert_equal_to_lanes(with_divergence(mlp(), 37, exact), columns=DIM + 1)


@as_shipped
def test_samples_that_start_at_times_of_their_own():
    assert_equal_to_lanes(Shifted(mlp(), torch.linspace(0, 1, 37, dtype=torch.float64)))


def test_velocities_that_move_positions():
    assert_equal_to_lanes(accelerating(), columns=4)


@as_shipped
def test_many_outputs_in_a_step_and_none_in_others():
    assert_equal_to_lanes(mlp(), ts=torch.cat((torch.linspace(0, 0.1, 9), torch.tensor([3.0]))).double())


@as_shipped
def test_one_sample_takes_the_steps_of_the_reference():
    field = mlp()
    per_sample = make_method("dopri5", batching=Batching.per_sample)
    own = answer(engine_named("native"), per_sample, "off", field, (1, DIM))
    shared = answer(engine_named("native"), make_method("dopri5"), "off", field, (1, DIM))
    torch.testing.assert_close(own.ys, shared.ys, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(own.gradient, shared.gradient, rtol=1e-11, atol=1e-12)
    mine, other = own.stats, shared.stats
    assert (mine.nfe_forward, mine.accepted, mine.rejected) == (other.nfe_forward, other.accepted, other.rejected)


@as_shipped
def test_a_sample_s_result_is_that_of_solving_it_alone():
    field, y0 = mlp(), torch.randn(40, DIM, dtype=torch.float64) * 3
    solve = differentiable(make_method("dopri5", batching=Batching.per_sample), engine="native")
    with torch.no_grad():
        together = solve(field, y0, FORWARD).ys
    alone = torch.cat([solve(field, part, FORWARD).ys for part in y0.split(1)], dim=1)
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)


@as_shipped
@pytest.mark.parametrize("adjoint", ["off", "checkpoint"])
def test_the_order_of_samples_changes_nothing_but_the_order_of_sums(adjoint: str):
    # One that takes many steps among many that take few, wherever it stands; lanes are filled more than once.
    field, method = mlp(), make_method("dopri5", batching=Batching.per_sample)
    y0 = torch.randn(50, DIM, dtype=torch.float64) * 0.05
    y0[0] *= 100
    found = []
    for order in (torch.arange(50), torch.arange(49, -1, -1), torch.randperm(50)):
        start = y0[order].requires_grad_()
        solution = differentiable(method, adjoint, rtol=1e-7, atol=1e-9, engine="native")(field, start, FORWARD)
        gradients = torch.autograd.grad(solution.ys.sin().mean(), [start, *field.parameters()])
        back = torch.argsort(order)
        steps = solution.stats.steps_of_samples
        assert steps is not None
        found.append((solution.ys.detach()[:, back], gradients[0][back], steps[:, back], gradients[1:]))
    assert len(set(found[0][2][0].tolist())) > 2
    for ys, by_start, steps, by_parameters in found[1:]:
        assert torch.equal(ys, found[0][0])
        assert torch.equal(by_start, found[0][1])
        assert torch.equal(steps, found[0][2])
        for mine, first in zip(by_parameters, found[0][3], strict=True):
            torch.testing.assert_close(mine, first, rtol=1e-11, atol=1e-14)


@as_shipped
def test_what_a_solve_keeps():
    field, y0, kept = mlp(), torch.randn(20, DIM, dtype=torch.float64), []
    for adjoint in ("off", "checkpoint", "on"):
        method = make_method("dopri5", batching=Batching.per_sample)
        solution = differentiable(method, adjoint, engine="native")(field, y0, FORWARD)
        kept.append(solution.stats.kept_bytes)
        solution.ys.sum().backward()
        assert (solution.stats.nfe_backward > 0) == (adjoint != "off")
    assert kept[0] > kept[1] > kept[2] > 0


@as_shipped
def test_threads_change_nothing_but_the_order_of_sums():
    answers = []
    for threads in (1, 2, 2):
        torch.set_num_threads(threads)
        method = make_method("dopri5", batching=Batching.per_sample)
        torch.manual_seed(3)
        answers.append(answer(engine_named("native"), method, "off", mlp(), (100, DIM)))
    one, two, again = answers
    assert torch.equal(one.ys, two.ys)
    torch.testing.assert_close(two.gradient, one.gradient, rtol=1e-12, atol=1e-14)
    assert torch.equal(two.gradient, again.gradient)


CASES = {
    "not-finite": (steep(float("nan")), {}),
    "budget": (steep(3.0), {"max_steps": 3}),
    "underflow": (steep(-1e17), {}),
}


@as_shipped
@pytest.mark.parametrize("ts", [[0.0, 5.0], [5.0, 0.0]], ids=["forward", "backward"])
@pytest.mark.parametrize("case", CASES)
def test_failures_are_those_of_the_reference_and_name_the_sample(case: str, ts: list[float]):
    field, options = CASES[case]
    times, said = torch.tensor(ts, dtype=torch.float64), []
    for engine, batching in (("torchdiffeq", "shared"), ("native", "per_sample"), ("lanes", "per_sample")):
        method = make_method("dopri5", batching=Batching(batching), **options)
        try:
            y0 = torch.ones(3, 1, dtype=torch.float64)
            differentiable(method, rtol=1e-9, atol=1e-9, engine=engine)(field, y0, times)
            said.append("solved")
        except SolveFailed as error:
            said.append(str(error))
    shared, native, lanes = said
    assert native == lanes
    assert native == (shared if shared == "solved" else f"{shared} (sample 0 of 3)")


@pytest.mark.parametrize("adjoint", ["off", "checkpoint", "on"])
def test_gates_of_a_time_for_each_sample(adjoint: str):
    assert_equal_to_lanes(with_divergence(gated(), 37, exact=False), columns=DIM + 1, adjoint=adjoint)


def test_gates_with_the_clock_running_back():
    assert_equal_to_lanes(gated(), ts=TIMES["backward"], name="bosh3")


def test_penalties_do_not_steer_the_steps_of_a_sample():
    integrands = [divergence_exact, Energy(), Norm()]
    field = Widened(mlp(), (DIM,), integrands)
    assert_equal_to_lanes(field, columns=DIM + 3, norm=LeadingNorm(DIM + 1))
