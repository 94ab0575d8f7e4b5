"""Series that have times of their own: the same as those on a grid, alone or with others, and what they cost."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from node_runner.batches import Lesson
from node_runner.errors import ConfigError
from node_runner.learning import ModelOutput
from node_runner.models.latent_sde import LatentSDE
from node_runner.models.parts.block import ODEBlock
from node_runner.models.parts.control import channels, knots, through
from node_runner.models.parts.cut import cut_short
from node_runner.models.parts.own_times import Together, on_one_grid
from node_runner.models.parts.recurrence import MovingMemory
from node_runner.settings import ControlPath
from node_runner.tasks import make_task
from node_runner.tasks.paths import path_batch
from node_runner.tasks.series import series_batch
from node_runner.types import Integrate
from node_runner.views import Series, View
from tests.models.builders import accurate_solve, field_factory, make_model, spec
from tests.models.test_series import Clock
from tests.problems import differentiable, make_method


MODELS = [("rnn", View.series), ("ode_rnn", View.series), ("latent", View.series),
          ("rnn", View.paths), ("ode_rnn", View.paths), ("cde", View.paths)]  # fmt: skip
NAMES = [f"{name}-{view.value}" for name, view in MODELS]


def model_of(name: str, view: View, solve: Integrate, **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    classes = 3 if view is View.paths else 0
    data = spec(view, (2,), mean=[0.0, 0.0], std=[1.0, 1.0], num_classes=classes, times=4)
    return make_model(name, data, field_factory(width=8), solve=solve, **settings).eval()


def midpoint() -> Integrate:
    return differentiable(make_method("midpoint"))


def each_its_own() -> tuple[Tensor, Tensor, Tensor]:
    """Times (5, 3), of which the second series has three, values (5, 3, 2) and what is seen of them."""
    ts = torch.tensor([[0, 0.3, 0.4, 1.0, 2.0], [0, 1.5, 2.0, 2.0, 2.0], [0, 0.7, 1.1, 1.2, 2.0]], dtype=torch.float64)
    seen = torch.ones(5, 3, 2, dtype=torch.bool)
    seen[-1] = seen[2:, 1] = False
    seen[0, 0, 1] = seen[2, 2] = False  # one channel, and a time that is hidden
    values = torch.randn(5, 3, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return ts.T, torch.where(seen, values, 0), seen


def alone(row: int) -> tuple[Tensor, ...]:
    """One of these series, without padding."""
    return tuple(x[: 3 if row == 1 else 5, row : row + 1] for x in each_its_own())


def sizes(output: Any) -> list[int]:
    return [solve.nfe_forward for solve in output.solves]


@pytest.mark.parametrize("solve", [midpoint, accurate_solve])
@pytest.mark.parametrize(("name", "view"), MODELS, ids=NAMES)
def test_times_that_are_the_same_are_as_good_as_shared(name: str, view: View, solve: Any):
    model = model_of(name, view, solve())
    ts = torch.linspace(0, 2, 5, dtype=torch.float64)
    _, values, seen = each_its_own()
    lesson = [Lesson(values, seen, 1.0)] if view is View.series else []
    found = []
    for times in (ts, ts.unsqueeze(1).expand(5, 3)):
        torch.manual_seed(3)  # the draws of a posterior
        found.append(model(times, values, seen, *lesson))
    shared, own = found
    close = dict(rtol=0, atol=1e-10)
    if solve is accurate_solve and name == "ode_rnn":
        close = dict(rtol=0, atol=1e-6)  # it solves for all times at once where they are shared
    else:
        assert sum(sizes(own)) == sum(sizes(shared))
    torch.testing.assert_close(own.value, shared.value, **close)
    if shared.objective is not None:
        torch.testing.assert_close(own.objective, shared.objective, **close)


@pytest.mark.parametrize(("name", "view"), MODELS, ids=NAMES)
def test_a_series_with_times_of_its_own_does_not_depend_on_its_neighbours(name: str, view: View):
    # A latent ODE solves for the times of all: its step sizes are then others, and as good.
    exact = name != "latent"
    model = model_of(name, view, midpoint() if exact else accurate_solve())
    with torch.no_grad():
        together = model(*each_its_own()).value
        for row in range(3):
            own = model(*alone(row)).value
            if view is View.paths:
                found, expected = together[row], own[0]
            else:
                found, expected = together[: len(own), row], own[:, 0]
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-10 if exact else 1e-6)


@pytest.mark.parametrize(("name", "view"), [*MODELS[1:3], *MODELS[4:]], ids=[*NAMES[1:3], *NAMES[4:]])
def test_a_solve_takes_a_step_to_each_time_of_a_series_and_not_to_those_of_its_neighbours(name: str, view: View):
    steps = sum(sizes(model_of(name, view, midpoint())(*each_its_own()))) // 2
    # The union of their times, 0 to 2, has nine; a latent ODE has a state at each.
    assert steps == (8 if name == "latent" else 4)


def test_a_latent_ode_agrees_with_what_it_infers_later_of_series_with_times_of_their_own():
    ts, values, seen = each_its_own()
    solve = accurate_solve()
    model = model_of("latent", View.series, solve, agreement=1.0).train()
    grid = Together(ts)
    found = []
    for times, told in ((ts, (values, seen)), (grid.ts, (grid.spread(values), grid.spread(seen)))):
        torch.manual_seed(3)
        found.append(model(times, *told, Lesson(*told, 1.0)))
    own, union = found
    torch.testing.assert_close(own.scalars["disagreement"], union.scalars["disagreement"])
    torch.testing.assert_close(own.objective, union.objective)
    draws = [model.imagine(t, *x, 2, generator=torch.Generator().manual_seed(1)) for t, x in
             ((ts, (values, seen)), (grid.ts, (grid.spread(values), grid.spread(seen))))]  # fmt: skip
    assert draws[0].shape == (2, 5, 3, 2)
    for drawn, all_times in zip(*draws, strict=True):
        torch.testing.assert_close(drawn, grid.of_each(all_times))


def test_a_latent_ode_predicts_at_any_times_what_it_predicts_at_those_of_the_series():
    ts, values, seen = each_its_own()
    model = model_of("latent", View.series, accurate_solve())
    at = Together(ts).ts
    torch.testing.assert_close(Together(ts).of_each(model.between(ts, values, seen, at)), model(ts, values, seen).value)
    draws = [model.imagine(ts, values, seen, 2, generator=torch.Generator().manual_seed(1), at=t) for t in (None, at)]
    for own, union in zip(*draws, strict=True):
        torch.testing.assert_close(own, Together(ts).of_each(union))


def test_one_grid_has_each_time_once_and_padding_hides_nothing():
    ts, values, seen = each_its_own()
    seen[2, 1] = True  # at the last time, which stands in its padding too
    values[2, 1] = 7.0
    grid = Together(ts)
    assert grid.ts.tolist() == [0, 0.3, 0.4, 0.7, 1.0, 1.1, 1.2, 1.5, 2]
    spread = grid.spread(values)
    assert spread[-1, 1].tolist() == [7, 7]
    assert int(grid.spread(seen).sum()) == int(seen.sum())
    torch.testing.assert_close(torch.where(seen, grid.of_each(spread), 0), torch.where(seen, values, 0))


def test_a_model_that_needs_one_grid_gets_it():
    class Told:
        @on_one_grid
        def imagine(self, ts: Tensor, values: Tensor, seen: Tensor, count: int) -> Tensor:
            return ts.view(1, -1, 1, 1).expand(count, -1, *values.shape[1:])

    ts, values, seen = each_its_own()
    assert Told().imagine(ts, values, seen, 2)[1, ..., 0].equal(ts)
    assert LatentSDE.forward.__wrapped__  # type: ignore[attr-defined]


class Shared(nn.Module):
    """Predicts what it is given, and knows shared times alone."""

    def forward(self, ts: Tensor, values: Tensor, seen: Tensor, lesson: Lesson | None = None) -> ModelOutput:
        assert ts.dim() == 1
        return ModelOutput(values, [], {})


def test_a_model_that_does_not_say_that_it_takes_times_of_each_series_is_refused_them():
    class Told(Shared):
        forward = on_one_grid(Shared.forward)

    ts, values, seen = (x.transpose(0, 1) for x in each_its_own())
    own, shared = Series(ts, values, seen, seen), Series(ts[0], values, seen, seen)
    data = spec(View.series, (2,), mean=[0.0, 0.0], std=[1.0, 1.0])
    with pytest.raises(ConfigError, match=r"Shared\.forward takes times \(T,\) .* put @on_one_grid above it"):
        make_task(data, {}, model=Shared(), part=own)
    make_task(data, {}, model=Shared(), part=shared)
    assert make_task(data, {}, model=Told(), part=own).evaluate(Told(), own, 3)["loss"] == 0


def test_the_field_of_a_moving_memory_is_told_the_time_of_each_series():
    ts, values, seen = each_its_own()
    memory = MovingMemory(2, 3, ODEBlock(lambda shape: Clock(), midpoint(), {}, (3,))).double()
    with torch.no_grad():
        read = memory(ts, values, seen)
    # The third is not seen at its third time, 1.1, and goes on to 1.2 by dh/dt = t.
    change = torch.full((3,), (1.2**2 - 1.1**2) / 2, dtype=torch.float64)
    torch.testing.assert_close(read.before[3, 2] - read.before[2, 2], change)
    assert read.left.tolist() == pytest.approx([1.0, 0.5, 0.8])


@pytest.mark.parametrize("kind", list(ControlPath))
def test_a_path_is_at_the_values_of_each_series_at_its_times_and_stands_still_in_padding(kind: ControlPath):
    ts, values, seen = each_its_own()
    x = channels(ts, values, seen, 4)
    path = through(knots(ts), x, kind)
    for place, t in enumerate(knots(ts)):
        torch.testing.assert_close(path.value(t), x[place])
        torch.testing.assert_close(path.value(t)[:, 0], ts[place])  # time is one of the channels
    for t in torch.linspace(1.0, 2.0, 9, dtype=torch.float64):
        torch.testing.assert_close(path.value(t)[1], x[2, 1])
        assert path.slope(t)[1].eq(0).all() or t == 1.0


def test_the_field_of_a_cde_is_told_the_time_of_each_series():
    torch.manual_seed(0)
    data = spec(View.paths, (2,), mean=[0.0, 0.0], std=[1.0, 1.0], num_classes=3, times=4)
    model = make_model("cde", data, field_factory("concatsquash", width=8), solve=midpoint())
    ts, values, seen = each_its_own()
    with torch.no_grad():
        together = model(ts + 1, values, seen).value
        alone_later = [model(alone(row)[0] + 1, *alone(row)[1:]).value for row in range(3)]
        earlier = model(ts, values, seen).value
    torch.testing.assert_close(together, torch.cat(alone_later), rtol=0, atol=1e-10)
    assert not torch.allclose(together, earlier)


def test_series_with_times_of_their_own_are_cut_short_at_one_time():
    ts, values, seen = each_its_own()
    torch.manual_seed(0)
    ends = set()
    for _ in range(60):
        kept = cut_short(ts, seen, Lesson(values, seen, 1.0), 1.0)
        last = float(ts[kept.any(dim=2)].max())
        assert kept.equal(seen & (ts <= last).unsqueeze(2))
        ends.add(last)
    assert ends == {0, 0.3, 0.4, 0.7, 1.0, 1.2, 1.5}


def test_a_batch_has_the_times_of_its_series_and_no_longer_padding():
    ts, values, seen = (x.transpose(0, 1).contiguous() for x in each_its_own())
    part = Series(ts, values, seen, seen, labels=torch.tensor([0, 1, 2]))
    for batch in (series_batch(part, torch.tensor([1])), path_batch(part, torch.tensor([1]))):
        assert batch.ts.tolist() == [[0], [1.5], [2]] and batch.times is batch.ts
        assert batch.values.shape == batch.seen.shape == (3, 1, 2)
    assert series_batch(part, torch.tensor([1, 0])).lesson.known.equal(seen[[1, 0]].transpose(0, 1))
