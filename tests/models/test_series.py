"""Models of irregular series: what they may see, and what they make of it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from node_runner.batches import Lesson
from node_runner.models.parts.block import ODEBlock
from node_runner.models.parts.control import channels, filled, through
from node_runner.models.parts.gaussian import gaussian_divergence
from node_runner.models.parts.recurrence import MovingMemory
from node_runner.settings import ControlPath
from node_runner.views import View
from tests.models.builders import field_factory, make_model, spec
from tests.problems import differentiable, make_method


TS = torch.tensor([0.0, 0.3, 0.4, 1.0, 1.7, 2.0], dtype=torch.float64)


def series(batch: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Times, values (T, B, 2) that are 0 where nothing is seen, and what is seen; never nothing at first."""
    generator = torch.Generator().manual_seed(2)
    values = torch.randn(len(TS), batch, 2, generator=generator, dtype=torch.float64)
    seen = torch.rand(len(TS), batch, 2, generator=generator) > 0.5
    seen[0] = True
    return TS, torch.where(seen, values, 0), seen


def ragged() -> tuple[Tensor, Tensor, Tensor]:
    """The same with series that are seen to the end, until early, not at all, and once."""
    ts = torch.tensor([0.1, 0.3, 0.4, 1.0, 1.7, 2.0, 2.2, 2.9], dtype=torch.float64)
    seen = torch.zeros(len(ts), 4, 2, dtype=torch.bool)
    seen[[0, 3, 5, 7], 0] = seen[[1, 2], 1] = seen[4, 3] = True
    seen[3, 0, 1] = False
    values = torch.randn(seen.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return ts, torch.where(seen, values, 0), seen


def model_of(name: str, view: View, **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    data = spec(view, (2,), mean=[0.0, 0.0], std=[1.0, 1.0], num_classes=3 if view is View.paths else 0)
    return make_model(name, data, field_factory(width=8), **settings).double()


MODELS = [("rnn", View.series), ("ode_rnn", View.series), ("latent", View.series),
          ("rnn", View.paths), ("ode_rnn", View.paths), ("cde", View.paths)]  # fmt: skip


@pytest.mark.parametrize(("name", "view"), MODELS, ids=[f"{name}-{view.value}" for name, view in MODELS])
def test_what_is_not_seen_does_not_count_and_a_series_does_not_depend_on_its_neighbours(name: str, view: View):
    fixed = differentiable(make_method("midpoint"))  # an adaptive step size is shared by a batch
    model = model_of(name, view, solve=fixed).eval()
    ts, values, seen = ragged()
    with torch.no_grad():
        expected = model(ts, values, seen).value
        hidden = model(ts, torch.where(seen, values, 7.0), seen).value
        alone = [model(ts, values[:, i : i + 1], seen[:, i : i + 1]).value for i in range(seen.shape[1])]
    axis = 1 if view is View.series else 0
    assert expected.shape == ((len(ts), 4, 2) if view is View.series else (4, 3))
    torch.testing.assert_close(hidden, expected)
    torch.testing.assert_close(torch.cat(alone, dim=axis), expected)


def test_a_still_memory_goes_on_from_its_own_predictions_as_often_as_it_was_given_observations():
    model = model_of("rnn", View.series).eval()
    ts, values, seen = ragged()
    memory, decoder = model.memory, model.decoder
    with torch.no_grad():
        found = model(ts, values, seen).value
        for i, (last, every) in enumerate([(7, 2), (2, 1), (-1, 1), (4, 4)]):
            h, heard = memory.start.unsqueeze(0), ts[:1]
            for place, t in enumerate(ts):
                y = decoder(memory.told(h, t - heard))
                torch.testing.assert_close(found[place, i], y[0])
                some = seen[place, i : i + 1]
                if some.any():
                    gap = t - heard if seen[:place, i].any() else torch.zeros(1, dtype=ts.dtype)
                    h, heard = memory.jump(h, values[place, i : i + 1], some, gap), t.unsqueeze(0)
                elif place > last and (place - last) % every == 0:
                    h, heard = memory.jump(h, y, torch.ones_like(y), t - heard), t.unsqueeze(0)


class Clock(nn.Module):
    """dh/dt = t."""

    time_dependent = True

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return t.reshape(-1, 1).expand_as(y)


def test_the_field_of_a_moving_memory_is_told_the_time_of_the_series():
    ts, values, seen = ragged()
    memory = MovingMemory(2, 3, ODEBlock(lambda shape: Clock(), differentiable(make_method("midpoint")), {}, (3,)))
    with torch.no_grad():
        read = memory.double()(ts, values, seen)
    for i, last in enumerate([7, 2, -1, 4]):
        # From the last observation on, and where nothing is seen at all: h(t) - h(s) = (t^2 - s^2) / 2.
        for place in range(last + 2, len(ts)):
            change = (ts[place] ** 2 - ts[place - 1] ** 2) / 2
            torch.testing.assert_close(read.before[place, i] - read.before[place - 1, i], change.expand(3))
    torch.testing.assert_close(read.end[1], read.before[-1, 1])
    assert not torch.allclose(read.end[0], read.before[-1, 0])  # the first is observed at the last time
    assert read.left.tolist() == pytest.approx([0, 2.5, 2.8, 1.2])


@pytest.mark.parametrize(("name", "view"), MODELS, ids=[f"{name}-{view.value}" for name, view in MODELS])
def test_gradients_agree_with_finite_differences(name: str, view: View):
    model = model_of(name, view)
    ts, values, seen = series(2)
    lesson = [Lesson(values, seen, 1.0)] if view is View.series else []
    # A path has kinks at its observations, so an adaptive solve of a cde is exact to some 1e-7 only.
    step_size, slack = (1e-3, 1e-2) if name == "cde" else (1e-5, 1e-3)

    def loss() -> Tensor:
        torch.manual_seed(5)  # the draws of a posterior
        output = model(ts, values, seen, *lesson)
        return output.value.square().mean() if output.objective is None else output.objective

    loss().backward()
    for parameter in model.parameters():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        place = int(gradient.abs().argmax())
        changed = []
        for step in (step_size, -step_size):
            with torch.no_grad():
                parameter.view(-1)[place] += step
                changed.append(float(loss().detach()))
                parameter.view(-1)[place] -= step
        difference = (changed[0] - changed[1]) / (2 * step_size)
        assert float(gradient.view(-1)[place]) == pytest.approx(difference, rel=slack, abs=slack / 100)


@pytest.mark.parametrize("name", ["latent", "latent_sde"])
@pytest.mark.parametrize("view", [View.series, View.processes])
def test_a_model_knows_from_which_of_its_views_it_learns(name: str, view: View):
    assert make_model(name, spec(view, (2,), mean=[0.0, 0.0], std=[1.0, 1.0]), field_factory()).view is view


def test_the_divergence_of_two_gaussians():
    mean, log_std = torch.tensor([[0.5, -1.0]]), torch.tensor([[0.0, math.log(2)]])
    exact = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, log_std.exp()), torch.distributions.Normal(0.0, 1.0)
    ).sum(dim=1)
    torch.testing.assert_close(gaussian_divergence(mean, log_std), exact)


@pytest.mark.parametrize("kind", list(ControlPath))
def test_a_path_goes_through_its_knots_and_its_slope_is_its_derivative(kind: ControlPath):
    x = torch.randn(len(TS), 3, 2, dtype=torch.float64)
    path = through(TS, x, kind)
    for i, t in enumerate(TS):
        torch.testing.assert_close(path.value(t), x[i])
    for t in (0.1, 0.35, 0.9, 1.9):
        time = torch.tensor(t, dtype=torch.float64)
        by_difference = (path.value(time + 1e-6) - path.value(time - 1e-6)) / 2e-6
        torch.testing.assert_close(path.slope(time), by_difference, rtol=1e-6, atol=1e-6)


def test_gaps_are_filled_by_straight_lines_and_ends_by_the_nearest_value():
    seen = torch.tensor([False, True, False, True, False, False])[:, None, None]
    values = torch.tensor([0, 2.0, 0, 4.0, 0, 0], dtype=torch.float64)[:, None, None]
    expected = torch.tensor([2, 2, 2 + 2 * (0.1 / 0.7), 4, 4, 4], dtype=torch.float64)
    torch.testing.assert_close(filled(TS, values, seen).flatten(), expected)
    assert filled(TS, values, torch.zeros_like(seen)).eq(0).all()
    control = channels(TS, values, seen, 6)[:, 0]
    torch.testing.assert_close(control[:, 0], TS)
    assert control[:, 2].tolist() == pytest.approx([0, 1 / 6, 1 / 6, 2 / 6, 2 / 6, 2 / 6])


def test_a_latent_ode_is_asked_to_agree_with_what_it_infers_later():
    """The term is -log q(z(t) | from t on) of the draw at some t of the grid, and that t varies."""
    ts, values, seen = series()
    lesson = Lesson(values, seen, 1.0)
    found = set()
    for seed in range(12):
        terms = []
        for weight in (0.0, 2.0):
            model = model_of("latent", View.series, agreement=weight)
            torch.manual_seed(seed)
            terms.append(model(ts, values, seen, lesson))
        plain, asked = terms
        torch.testing.assert_close(asked.objective - plain.objective, 2 * asked.scalars["disagreement"])
        with torch.no_grad():
            torch.manual_seed(seed)
            mean, log_std = model.posterior(ts, values, seen)
            z = model.trajectory(mean + log_std.exp() * torch.randn_like(mean), ts)
            for place in range(len(ts)):
                later, log_later = model.posterior(ts[place:], values[place:], seen[place:])
                density = torch.distributions.Normal(later, log_later.exp()).log_prob(z[place]).sum(dim=1)
                if torch.isclose(-density.mean(), asked.scalars["disagreement"], rtol=1e-4):
                    found.add(place)
                    break
            else:
                pytest.fail("the term is none of those along the path")
    assert len(found) > 2


def test_what_is_weighed_or_hidden_in_training_leaves_the_bound_that_is_measured_as_it_is():
    ts, values, seen = series()
    lesson = Lesson(values, seen, 1.0)
    objectives = []
    for settings in ({}, {"cut": 1.0}, {"agreement": 3.0}, {"kl": 0.2}):
        model = model_of("latent", View.processes, **settings).eval()
        torch.manual_seed(5)
        with torch.no_grad():
            objectives.append(model(ts, values, seen, lesson).objective)
    assert objectives[1:] == objectives[:1] * 3
