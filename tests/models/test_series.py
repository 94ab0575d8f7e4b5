"""Models of irregular series: what they may see, and what they make of it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from node_runner.models.control import channels, filled, through
from node_runner.models.latent import gaussian_divergence
from node_runner.settings import ControlPath
from node_runner.views import Lesson, View
from tests.models.builders import field_factory, make_model, spec


TS = torch.tensor([0.0, 0.3, 0.4, 1.0, 1.7, 2.0], dtype=torch.float64)


def series(batch: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Times, values (T, B, 2) that are 0 where nothing is seen, and what is seen; never nothing at first."""
    generator = torch.Generator().manual_seed(2)
    values = torch.randn(len(TS), batch, 2, generator=generator, dtype=torch.float64)
    seen = torch.rand(len(TS), batch, 2, generator=generator) > 0.5
    seen[0] = True
    return TS, torch.where(seen, values, 0), seen


def model_of(name: str, view: View, **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    data = spec(view, (2,), mean=[0.0, 0.0], std=[1.0, 1.0], num_classes=3 if view is View.paths else 0)
    return make_model(name, data, field_factory(width=8), **settings).double()


MODELS = [("rnn", View.series), ("ode_rnn", View.series), ("latent", View.series),
          ("rnn", View.paths), ("ode_rnn", View.paths), ("cde", View.paths)]  # fmt: skip


@pytest.mark.parametrize(("name", "view"), MODELS, ids=[f"{name}-{view.value}" for name, view in MODELS])
def test_what_is_not_seen_does_not_count_and_a_series_does_not_depend_on_its_neighbours(name: str, view: View):
    model = model_of(name, view).eval()
    ts, values, seen = series()
    with torch.no_grad():
        expected = model(ts, values, seen).value
        hidden = model(ts, torch.where(seen, values, 7.0), seen).value
        # Tolerance of the solve: step sizes are shared by a batch.
        alone = model(ts, values[:, :1], seen[:, :1]).value
    axis = 1 if view is View.series else 0
    assert expected.shape == ((len(TS), 4, 2) if view is View.series else (4, 3))
    torch.testing.assert_close(hidden, expected)
    torch.testing.assert_close(alone, expected.narrow(axis, 0, 1), rtol=1e-4, atol=1e-4)


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
    control = channels(TS, values, seen)[:, 0]
    torch.testing.assert_close(control[:, 0], TS)
    assert control[:, 2].tolist() == pytest.approx([0, 1 / 6, 1 / 6, 2 / 6, 2 / 6, 2 / 6])
