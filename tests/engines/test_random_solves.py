"""Solves drawn at random, on every engine of ours against torchdiffeq: what nobody thought of putting together.

    NODE_RUNNER_SOLVES=500 NODE_RUNNER_SEED=7 python -m pytest tests/engines/test_random_solves.py

draws 500 others. A failure names its number: the same seed and number draw the same solve again. There are two fields,
each with one size of batch, so that the native engine compiles six libraries; the compiled engine's steps are called
as they are written.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from node_runner.adjoints import ADJOINTS
from node_runner.engines.compiler import compiler
from node_runner.errors import SolveFailed
from node_runner.fields.mlp import MLP
from node_runner.settings import Activation, Batching, Interpolation, ToleranceConfig
from node_runner.solving import Solve, Tolerances
from node_runner.types import Engine, SolveStats
from tests.problems import METHODS, engine_named, make_method


SOLVES = int(os.environ.get("NODE_RUNNER_SOLVES", "20"))
SEED = int(os.environ.get("NODE_RUNNER_SEED", "1"))

DIM = 3

CLOSE = {"dopri8": (1e-7, 1e-5)}
"""How far values and gradients may differ, relative. The error of dopri8 is so small beside its terms that their
rounding moves the step: among 60 such solves of torchdiffeq's own that began one rounding away from one another, values
differed by up to 6e-9, gradients of the adjoint by 1.4e-6."""
EXPLICIT = [name for name, method in METHODS.items() if method.tableau is not None]


class Written(nn.Module):
    """Much that a user may write: the time first, a layer without bias, several activations, one at the end."""

    def __init__(self) -> None:
        super().__init__()
        hidden = nn.Linear(DIM + 1, 6, bias=False), nn.Sigmoid(), nn.Linear(6, 6), nn.LeakyReLU(0.2)
        self.net = nn.Sequential(*hidden, nn.Linear(6, DIM), nn.Tanh())

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """t: () or (B,), y: (B, D) -> (B, D)."""
        return self.net(torch.cat((t.reshape(-1, 1).expand(len(y), 1), y), dim=1))


class Draw(NamedTuple):
    """One solve. adjoint: of the gradient. written: whether by the field above. steepness: of the field."""

    method: str
    options: dict[str, Any]
    adjoint: str
    tolerance: dict[str, float]
    times: list[float]
    written: bool
    steepness: float

    @property
    def batch(self) -> int:
        """Samples."""
        return 2 if self.written else 9

    @property
    def estimates(self) -> bool:
        """Whether the first step is estimated: torchdiffeq differentiates the estimate, engines of ours do not."""
        return METHODS[self.method].adaptive and "first_step" not in self.options

    @property
    def alone(self) -> bool:
        """Whether each sample has steps of its own."""
        return self.options.get("batching") is Batching.per_sample

    @property
    def close(self) -> tuple[float, float]:
        """How far values and gradients may differ."""
        return CLOSE.get(self.method, (1e-10, 1e-9))

    def field(self) -> nn.Module:
        """Its network, told the time."""
        torch.manual_seed(len(self.times))
        mlp = MLP((DIM,), width=6, depth=1, activation=Activation.tanh, time_dependent=True)
        field = (Written() if self.written else mlp).double()
        for parameter in field.parameters():
            parameter.data.mul_(self.steepness)
        return field


def drawn(number: int) -> Draw:
    rng = random.Random(f"{SEED} {number}")
    name = rng.choice(EXPLICIT)
    method = METHODS[name]
    times = list(moments(rng))
    span = abs(times[-1] - times[0])
    options = dict(control(rng, span) if method.adaptive else grid(rng, span))
    adjoint = rng.choice(["off", "checkpoint", "on", *["seminorm"] * method.adaptive])
    if method.adaptive and rng.random() < 0.25:
        options["batching"], adjoint = Batching.per_sample, "off"
    # The lower the order, the more steps a tolerance takes; and where an error is rounding, that decides about steps.
    finest = {2: -4, 3: -5}.get(method.order or 1, -7)
    tolerance = {"rtol": 10 ** rng.uniform(finest, -1), "atol": 10 ** rng.uniform(finest - 1, -2)}
    if rng.random() < 0.3:
        tolerance |= {"adjoint_rtol": 10 ** rng.uniform(finest, -1), "adjoint_atol": 10 ** rng.uniform(finest - 1, -2)}
    return Draw(name, options, adjoint, tolerance, times, rng.random() < 0.5, rng.uniform(0.5, 2.5))


def moments(rng: random.Random) -> Iterator[float]:
    """Output times, forward or backward: some so close that a step has many, some so far that many steps have none."""
    t, sign = rng.choice([0.0, -1.3, 50.0]), rng.choice([-1, 1])
    yield t
    for _ in range(rng.choice([1, 2, 5, 11])):
        gap = rng.choice([1e-9, 10 ** rng.uniform(-4, -2), 0.1, rng.uniform(0.05, 1.0)])
        t += sign * gap
        yield t


def control(rng: random.Random, span: float) -> Iterator[tuple[str, Any]]:
    """Options of adaptive steps."""
    first = span * 10 ** rng.uniform(-3, 0.5)
    for option, share, value in (
        ("first_step", 0.7, first),
        ("max_step", 0.3, span * rng.uniform(0.02, 0.5)),
        ("min_step", 0.2, span * 10 ** rng.uniform(-4, -2)),
        ("safety", 0.2, rng.uniform(0.5, 0.95)),
        ("ifactor", 0.2, rng.uniform(1.0, 20.0)),
        ("dfactor", 0.2, rng.uniform(0.05, 0.9)),
        ("max_steps", 0.1, rng.randint(1, 20)),
    ):
        if rng.random() < share:
            yield option, value


def grid(rng: random.Random, span: float) -> Iterator[tuple[str, Any]]:
    """Options of fixed steps."""
    if rng.random() < 0.7:
        # As often one that ends at the last time but for rounding.
        yield (
            "step_size",
            span / rng.choice([1, 3, 10, 30]) if rng.random() < 0.5 else span * 10 ** rng.uniform(-2, 0.3),
        )
    if rng.random() < 0.4:
        yield "interp", Interpolation.cubic
    if rng.random() < 0.3:
        yield "perturb", True


class Answer(NamedTuple):
    ys: Tensor
    gradient: Tensor
    stats: SolveStats


def answer(engine: Engine, draw: Draw, adjoint: str, samples: slice = slice(None), **options: Any) -> Answer | str:
    """Values, gradient and cost of a solve, or why it failed."""
    generator = torch.Generator().manual_seed(draw.batch)
    y0, target = (torch.randn(2, draw.batch, DIM, generator=generator, dtype=torch.float64)[:, samples]).unbind()
    y0.requires_grad_(True)
    field = draw.field()
    method = make_method(draw.method, **{**draw.options, **options})
    solve = Solve(engine, method, ADJOINTS.get(adjoint)(), Tolerances(ToleranceConfig(**draw.tolerance)))
    ts = torch.tensor(draw.times, dtype=torch.float64)
    try:
        solution = solve(field, y0, ts)
        weights = torch.linspace(0.5, 1.5, len(ts), dtype=torch.float64)[:, None, None]
        loss = (weights * (solution.ys - target).square()).sum()
        gradients = torch.autograd.grad(loss, [y0, *field.parameters()])
    except SolveFailed as failure:
        return str(failure)
    return Answer(solution.ys.detach(), torch.cat([g.reshape(-1) for g in gradients]), solution.stats)


def serving(draw: Draw) -> Iterator[Engine]:
    """The engines of ours that serve a solve."""
    method, y0 = make_method(draw.method, **draw.options), torch.zeros(draw.batch, DIM, dtype=torch.float64)
    for name in ("native", "compiled", "lanes"):
        engine = engine_named(name)
        if draw.adjoint in engine.adjoints or draw.adjoint != "checkpoint":
            reason = engine.unsupported(method) or engine.refuses(method, draw.field(), y0, None, draw.adjoint)
            if reason is None:
                yield engine


@pytest.mark.parametrize("number", range(SOLVES))
def test_a_solve_drawn_at_random_is_torchdiffeq_s(number: int):
    draw = drawn(number)
    engines = list(serving(draw))
    names = {"native", "lanes"} if draw.alone else {"native", "compiled"}
    assert {engine.name for engine in engines} == names - ({"native"} if compiler() is None else set())
    for engine in engines:
        (assert_alone if draw.alone else assert_together)(engine, draw)


def assert_together(engine: Engine, draw: Draw) -> None:
    """One step size for the batch: everything is torchdiffeq's."""
    # adjoint=checkpoint is another way to the gradient of adjoint=off.
    reference = "off" if draw.adjoint == "checkpoint" else draw.adjoint
    ours, theirs = answer(engine, draw, draw.adjoint), answer(engine_named("torchdiffeq"), draw, reference)
    if isinstance(ours, str) or isinstance(theirs, str):
        assert ours == theirs, (engine.name, draw)
        return
    counts = [
        (stats.nfe_forward, stats.accepted, stats.rejected, stats.accepted_backward, stats.rejected_backward)
        for stats in (ours.stats, theirs.stats)
    ]
    assert counts[0] == counts[1], (engine.name, draw)
    if reference != "off":
        # The native engine evaluates no slope at the end of an interval for its cubic: the state there is known.
        cubic = engine.name == "native" and draw.options.get("interp") is Interpolation.cubic
        saved = len(draw.times) - 1 if cubic else 0
        assert ours.stats.nfe_backward == theirs.stats.nfe_backward - saved, (engine.name, draw)
    values, gradients = draw.close
    assert distance(ours.ys, theirs.ys) < values, (engine.name, draw)
    if not (draw.estimates and reference == "off"):
        assert distance(ours.gradient, theirs.gradient) < gradients, (engine.name, draw)


def assert_alone(engine: Engine, draw: Draw) -> None:
    """Steps of each sample's own: values and steps are those of torchdiffeq for the sample alone."""
    ours = answer(engine, draw, "off")
    theirs = [
        answer(engine_named("torchdiffeq"), draw, "off", slice(i, i + 1), batching=Batching.shared)
        for i in range(draw.batch)
    ]
    if isinstance(ours, str) or any(isinstance(one, str) for one in theirs):
        assert isinstance(ours, str) and any(isinstance(one, str) for one in theirs), (engine.name, draw)
        return
    answers = [one for one in theirs if not isinstance(one, str)]
    steps = ours.stats.steps_of_samples
    assert steps is not None
    assert steps.T.tolist() == [[one.stats.accepted, one.stats.rejected] for one in answers], (engine.name, draw)
    values, gradients = draw.close
    assert distance(ours.ys, torch.cat([one.ys for one in answers], dim=1)) < values, (engine.name, draw)
    if not draw.estimates:
        parameters = sum(one.gradient[DIM:] for one in answers)
        expected = torch.cat([*[one.gradient[:DIM] for one in answers], parameters])
        assert distance(ours.gradient, expected) < gradients, (engine.name, draw)


def distance(a: Tensor, b: Tensor) -> float:
    """Relative, by the norm; of NaN infinite."""
    found = float((a - b).norm() / b.norm())
    return math.inf if math.isnan(found) else found
