"""Series that are cut short in training."""

from __future__ import annotations

import pytest
import torch

from node_runner.batches import Lesson
from node_runner.errors import ConfigError
from node_runner.models.parts.cut import cut_short
from node_runner.views import View
from tests.models.builders import field_factory, make_model, spec


TS = torch.linspace(0, 3, 7)
SEEN = torch.rand(7, 3, 2, generator=torch.Generator().manual_seed(1)) > 0.3
LESSON = Lesson(torch.zeros(7, 3, 2), SEEN, 0.5)


def test_what_is_kept_of_series_that_are_cut_short_is_their_beginning():
    torch.manual_seed(0)
    ends = set()
    for _ in range(60):
        kept = cut_short(TS, SEEN, LESSON, 1.0)
        (end,) = [k for k in range(1, 7) if kept[:k].equal(SEEN[:k]) and not kept[k:].any()]
        ends.add(end)
    assert ends == set(range(1, 7))


def test_nothing_is_cut_short_outside_of_training_and_in_the_rest_of_its_steps():
    torch.manual_seed(0)
    assert cut_short(TS, SEEN, None, 1.0) is SEEN
    assert cut_short(TS, SEEN, LESSON, 0.0) is SEEN
    whole = sum(cut_short(TS, SEEN, LESSON, 0.25) is SEEN for _ in range(400))
    assert 260 <= whole <= 340


@pytest.mark.parametrize("name", ["rnn", "ode_rnn", "latent"])
def test_a_model_that_is_cut_short_is_taught_all_that_is_known(name: str):
    torch.manual_seed(0)
    data = spec(View.series, (2,), mean=[0.0, 0.0], std=[1.0, 1.0])
    model = make_model(name, data, field_factory(width=8), cut=1.0)
    ts, values = torch.linspace(0, 1, 7), torch.randn(7, 3, 2)
    seen = torch.ones_like(values, dtype=torch.bool)
    lesson = Lesson(values, seen, 1.0)
    results = []
    for changed in (values, torch.cat((values[:-1], values[-1:] + 9))):
        torch.manual_seed(1)
        results.append(model(ts, changed, seen, lesson))
    first, second = results
    torch.testing.assert_close(first.value, second.value)  # the last place is not read
    if first.objective is not None:
        torch.manual_seed(1)
        other = model(ts, values, seen, Lesson(torch.cat((values[:-1], values[-1:] + 9)), seen, 1.0))
        assert other.objective > first.objective  # but it is taught


@pytest.mark.parametrize("name", ["rnn", "ode_rnn"])
def test_paths_are_not_cut_short(name: str):
    data = spec(View.paths, (2,), mean=[0.0, 0.0], std=[1.0, 1.0], num_classes=3)
    with pytest.raises(ConfigError, match=r"use model\.cut=0"):
        make_model(name, data, field_factory(width=8), cut=0.5)
