"""Steps of each sample's own: equal to those of a sample alone, whatever its neighbours do."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from node_runner.engines.auto import Auto
from node_runner.engines.lanes.engine import LanesEngine
from node_runner.errors import ConfigError, SolveFailed
from node_runner.fields.concatsquash import ConcatSquash
from node_runner.fields.conv import Conv
from node_runner.fields.mlp import MLP
from node_runner.models.parts.dynamics import Hutchinson, Shifted, Widened, divergence_exact, leading_norm
from node_runner.settings import Batching
from node_runner.types import Method
from tests.engines.equality import FORWARD, TIMES, assert_finite_differences_agree
from tests.problems import ADAPTIVE, METHODS, SmallField, differentiable, make_method, nonlinear, solve


EXPLICIT = [name for name in ADAPTIVE if METHODS[name].implicit is None]


def per_sample(name: str = "dopri5", **options: object) -> Method:
    return make_method(name, batching=Batching.per_sample, **options)


def states(batch: int = 5, dim: int = 3, seed: int = 5) -> Tensor:
    return torch.randn(batch, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Relaxation(nn.Module):
    """y' = -r (y - cos t) - sin t, whose solution from y(0) = 1 is cos t: as stiff as the rate r of each sample."""

    time_dependent = True

    def __init__(self, rates: Tensor) -> None:
        super().__init__()
        self.rates = rates

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        t = t.reshape(-1, 1)
        return -self.rates[:, None] * (y - torch.cos(t)) - torch.sin(t)


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("name", EXPLICIT)
def test_one_sample_takes_the_steps_of_the_reference(name: str, times: str):
    field, y0, ts = SmallField(), states(1), TIMES[times]
    alone = solve(per_sample(name), field, y0, ts, engine="lanes", rtol=1e-5, atol=1e-6)
    shared = solve(METHODS[name], field, y0, ts, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(alone.ys, shared.ys, rtol=1e-12, atol=1e-12)
    mine, other = alone.stats, shared.stats
    assert (mine.nfe_forward, mine.accepted, mine.rejected) == (other.nfe_forward, other.accepted, other.rejected)


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("name", EXPLICIT)
def test_a_sample_s_result_is_that_of_solving_it_alone(name: str, times: str):
    size = torch.tensor([0.1, 0.5, 1, 4, 8], dtype=torch.float64)
    field, y0, ts = SmallField(), size[:, None] * states(), TIMES[times]
    tolerance = 1e-8 if name == "dopri8" else 1e-5
    with torch.no_grad():
        together, *alone = (
            solve(per_sample(name), field, y, ts, engine="lanes", rtol=tolerance, atol=tolerance)
            for y in (y0, *y0.split(1))
        )
    # The error estimate of dopri8 is so small beside its terms that their rounding moves the step.
    slack = 1e-9 if name == "dopri8" else 1e-12
    torch.testing.assert_close(together.ys, torch.cat([each.ys for each in alone], dim=1), rtol=slack, atol=slack)
    steps = together.stats.steps_of_samples
    assert steps is not None
    assert steps.T.tolist() == [[each.stats.accepted, each.stats.rejected] for each in alone]
    assert name == "dopri8" or len(set(steps.sum(dim=0).tolist())) > 1  # they did differ
    attempts = together.stats.accepted + together.stats.rejected
    assert attempts == max(steps.sum(dim=0).tolist())
    assert together.stats.nfe_forward == 2 + (method_stages(name) - 1) * attempts


def method_stages(name: str) -> int:
    tableau = METHODS[name].tableau
    assert tableau is not None
    return tableau.stages


def test_an_easy_sample_does_not_pay_for_a_stiff_one():
    y0 = torch.ones(2, 1, dtype=torch.float64)
    easy = solve(per_sample(), Relaxation(torch.ones(1)), y0[:1], FORWARD, engine="lanes", rtol=1e-5, atol=1e-5)
    rates = torch.tensor([1.0, 300.0])
    own = solve(per_sample(), Relaxation(rates), y0, FORWARD, engine="lanes", rtol=1e-5, atol=1e-5).stats
    assert own.steps_of_samples is not None
    accepted, rejected = own.steps_of_samples
    assert (int(accepted[0]), int(rejected[0])) == (easy.stats.accepted, easy.stats.rejected)
    assert int(accepted[1]) > 10 * int(accepted[0])


def test_a_norm_of_a_batch_is_asked_for_each_sample():
    field = Widened(SmallField(dim=2), (2,), [divergence_exact])
    y0 = field.begin(3 * states(4, 2))
    own = solve(per_sample(), field, y0, FORWARD, engine="lanes", norm=leading_norm(2)).stats
    plain = solve(per_sample(), SmallField(dim=2), y0[:, :2], FORWARD, engine="lanes").stats
    assert own.steps_of_samples is not None and plain.steps_of_samples is not None
    assert torch.equal(own.steps_of_samples[0], plain.steps_of_samples[0])


@pytest.mark.parametrize("name", EXPLICIT)
def test_a_tighter_tolerance_is_a_smaller_error(name: str):
    _, y0, exact = nonlinear()

    def each(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack((2 * y[:, 0] * (1 - y[:, 0]), torch.cos(t) * y[:, 1]), dim=1)

    ts = torch.linspace(0, 1, 4, dtype=torch.float64)
    batch = y0.repeat(3, 1)
    errors = []
    for tolerance in (1e-3, 1e-7):
        ys = solve(per_sample(name), each, batch, ts, engine="lanes", rtol=tolerance, atol=tolerance).ys
        errors.append(float((ys - exact(ts)).abs().max()))
    assert errors[1] < errors[0] / 20
    assert errors[1] < 1e-4  # of dopri8, what its dense output leaves


def test_gradients_agree_with_finite_differences():
    # All steps of one size, so that the step control has no part in it.
    field, y0 = SmallField(), states(3).requires_grad_()
    run = differentiable(per_sample(first_step=0.5, min_step=0.5, max_step=0.5), engine="lanes")

    def loss() -> Tensor:
        return run(field, y0, FORWARD).ys.sin().sum()

    assert_finite_differences_agree(loss, [y0, *field.parameters()], every=5)


def gradients(field: nn.Module, y0: Tensor, method: Method, adjoint: str, tolerance: float, engine: str) -> Tensor:
    y0 = y0.clone().requires_grad_()
    ys = differentiable(method, adjoint, rtol=tolerance, atol=tolerance, engine=engine)(field, y0, FORWARD).ys
    wanted = torch.autograd.grad(ys.sin().sum(), [y0, *field.parameters()])
    return torch.cat([g.reshape(-1) for g in wanted])


def test_the_gradient_of_a_batch_is_the_sum_of_those_of_its_samples():
    field, y0 = SmallField(), 3 * states()
    together = gradients(field, y0, per_sample(), "off", 1e-4, "lanes")
    alone = [gradients(field, y, per_sample(), "off", 1e-4, "lanes") for y in y0.split(1)]
    by_y0 = torch.cat([each[:3] for each in alone])
    torch.testing.assert_close(together, torch.cat((by_y0, sum(each[3:] for each in alone))), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("adjoint", ["off", "on", "seminorm"])
def test_gradients_are_those_of_the_flow(adjoint: str):
    field, y0 = SmallField(), states()
    own = gradients(field, y0, per_sample(), adjoint, 1e-9, "lanes")
    exact = gradients(field, y0, METHODS["dopri5"], "off", 1e-10, "torchdiffeq")
    torch.testing.assert_close(own, exact, rtol=1e-6, atol=1e-6)


def test_an_attempt_that_overflows_does_not_spoil_the_gradient():
    class Steep(nn.Module):
        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return -torch.exp(y * y)

    y0 = torch.tensor([[2.0], [0.1]], dtype=torch.float64, requires_grad=True)
    solution = differentiable(per_sample(first_step=2.0, min_step=1e-4), engine="lanes")(Steep(), y0, FORWARD[:3] / 10)
    assert solution.stats.rejected > 0
    assert solution.ys.isfinite().all()
    (gradient,) = torch.autograd.grad(solution.ys.sum(), y0)
    assert gradient.isfinite().all()


# --- what is refused -------------------------------------------------------------------------------------


def refusal(field: object, y0: Tensor, adjoint: str = "off") -> str | None:
    return LanesEngine().refuses(per_sample(), field, y0, None, adjoint)  # type: ignore[arg-type]


def test_fields_of_the_package_take_a_time_for_each_sample():
    y0 = torch.zeros(4, 3)
    fields = [MLP((3,), time_dependent=True), ConcatSquash((3,)), Shifted(MLP((3,), time_dependent=True), y0[:, 0])]
    for field in fields:
        assert refusal(field, y0) is None
        assert refusal(Widened(field, (3,), [Hutchinson(torch.randn(4, 3))]), torch.zeros(4, 4)) is None
    assert refusal(Conv((2, 4, 4)), torch.zeros(3, 2, 4, 4)) is None


@pytest.mark.parametrize("batch", [2, 4])
def test_a_field_that_broadcasts_its_time_is_found_out(batch: int):
    reason = refusal(lambda t, y: torch.cos(t) * y, torch.zeros(batch, 4))
    assert reason is not None and "does not take a time for each sample" in reason


def test_a_field_whose_samples_feel_one_another_is_found_out():
    reason = refusal(lambda t, y: y - y.mean(dim=0), torch.zeros(3, 2))
    assert reason is not None and "feel one another" in reason


def test_other_engines_and_other_methods_say_what_to_use():
    method = per_sample()
    for engine in ("torchdiffeq", "compiled"):
        with pytest.raises(ConfigError, match=r"solver\.batching=shared"):
            differentiable(method, engine=engine)
    assert "batching=per_sample" in (LanesEngine().unsupported(METHODS["dopri5"]) or "")
    assert "solver=rk4 is none" in (LanesEngine().unsupported(METHODS["rk4"]) or "")
    assert "adjoint=checkpoint" in (refusal(MLP((3,)), torch.zeros(2, 3), "checkpoint") or "")
    assert "needs a batch" in (refusal(MLP((3,)), torch.zeros(3)) or "")


def test_auto_serves_each_sample_its_steps():
    assert Auto().unsupported(per_sample()) is None
    y0 = torch.zeros(4, 2)
    assert Auto().refuses(per_sample(), lambda t, y: -y, y0, None, "off") is None
    assert "feel one another" in (Auto().refuses(per_sample(), lambda t, y: y - y.sum(0), y0, None, "off") or "")
    run = differentiable(per_sample(), engine="auto")
    run(lambda t, y: -(y**3), y0, FORWARD.float())
    assert getattr(run, "served_by", None) == "lanes"


# --- failures: the sentences of the reference engine, and which sample it is -----------------------------------


class Rough(Relaxation):
    """A field that no step can resolve, but for a rate of zero."""

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.rates[:, None] * torch.sin(self.rates[:, None] * y)


CASES = {
    "not-finite": (Relaxation, float("nan"), {}, "not finite"),
    "budget": (Relaxation, 3.0, {"max_steps": 3, "first_step": 0.125, "max_step": 0.125}, "(3 accepted, 0 rejected"),
    "underflow": (Rough, 1e30, {}, "too small to move on"),
}


@pytest.mark.parametrize("ts", [[1.0, 2.0], [2.0, 1.0]], ids=["forward", "backward"])
@pytest.mark.parametrize("case", CASES)
def test_a_sample_that_fails_is_named_with_the_sentence_of_the_reference(case: str, ts: list[float]):
    kind, gain, options, expected = CASES[case]
    tolerance = 1e-2 if case == "budget" else 1e-9
    times, said = torch.tensor(ts, dtype=torch.float64), []
    for engine, method, gains in (
        ("torchdiffeq", make_method("dopri5", **options), [gain]),
        ("lanes", per_sample(**options), [gain, 0.0]),
    ):
        field = kind(torch.tensor(gains, dtype=torch.float64))
        y0 = torch.full((len(gains), 1), 0.7, dtype=torch.float64)
        with pytest.raises(SolveFailed) as caught:
            solve(method, field, y0, times, rtol=tolerance, atol=tolerance, engine=engine)
        said.append(str(caught.value))
    assert expected in said[0]
    assert said[1] == said[0] + " (sample 0 of 2)"
