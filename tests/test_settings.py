"""Ranges of settings, and the check that every run goes through."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest

from node_runner.errors import ConfigError, did_you_mean
from node_runner.settings import (
    Above,
    AtLeast,
    AtMost,
    Between,
    Count,
    DeviceConfig,
    Positive,
    Share,
    ToleranceConfig,
    TrainerConfig,
    check,
    ranges,
)


@dataclass
class Inner:
    share: Share = 0.5


@dataclass
class Outer:
    count: Count = 1
    rate: Positive | None = None
    both: Annotated[float, Above(0), AtMost(1)] = 0.5
    flag: bool = True
    text: str = ""
    several: list[float] = field(default_factory=list)
    inner: Inner = field(default_factory=Inner)
    many: dict[str, Any] = field(default_factory=dict)


@pytest.mark.parametrize(
    ("limit", "allowed", "refused", "words"),
    [
        (AtMost(2), [-math.inf, 2], [2.1, math.inf], "a number of at most 2"),
        (Above(0), [1e-300, 1, math.inf], [0, -1], "a number above 0"),
        (AtLeast(2), [2, 3.5], [1.999], "a number of at least 2"),
        (Between(0, 1), [0, 0.5, 1], [-1e-9, 1.0001], "a number from 0 to 1"),
    ],
    ids=["at-most", "above", "at-least", "between"],
)
def test_a_range_allows_what_it_says(limit: Any, allowed: list[float], refused: list[float], words: str):
    assert all(limit.allows(value) for value in allowed)
    assert not any(limit.allows(value) for value in refused)
    assert str(limit) == words


def test_ranges_are_found_on_annotations_and_inside_optional_ones():
    assert ranges(Count) == [AtLeast(1)]
    assert ranges(Positive | None) == [Above(0)]
    assert ranges(Annotated[float, Above(0), AtMost(1)]) == [Above(0), AtMost(1)]
    assert ranges(int | None) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 0}, "count: expected a number of at least 1, got 0"),
        ({"rate": 0.0}, r"rate: expected a number above 0, got 0\.0"),
        ({"rate": math.nan}, "rate: expected a finite number, got nan"),
        ({"both": 0.0}, "both: expected a number above 0 and of at most 1"),
        ({"both": 1.5}, "both: expected a number above 0 and of at most 1"),
        ({"several": [1.0, math.nan]}, "several: expected a finite number, got nan"),
        ({"inner": Inner(2.0)}, r"inner\.share: expected a number from 0 to 1, got 2\.0"),
        ({"many": {"one": Inner(-1.0)}}, r"many\.one\.share: expected a number from 0 to 1, got -1\.0"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_value_out_of_range_is_refused_by_its_full_name(change: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=f"^{message}"):
        check(dataclasses.replace(Outer(), **change), "")


@pytest.mark.parametrize("change", [{}, {"rate": 1e-9}, {"flag": False}, {"text": "x"}, {"several": [-1.0]}])
def test_values_in_range_pass(change: dict[str, Any]):
    assert check(dataclasses.replace(Outer(), **change), "") is None


def test_a_key_that_no_class_declares_is_refused_with_those_that_it_does():
    config = Outer()
    config.inner.shar = 1.0
    with pytest.raises(ConfigError, match=r"^part\.inner\.shar: no such setting \(known: share\)$"):
        check(config, "part")


@pytest.mark.parametrize("kind", [ToleranceConfig, TrainerConfig, DeviceConfig])
def test_the_defaults_are_within_their_own_ranges_and_described(kind: type):
    check(kind(), "")
    described = kind.__doc__ or ""
    assert all(item.name in described for item in dataclasses.fields(kind))


@pytest.mark.parametrize(
    ("group", "setting", "value"),
    [
        (ToleranceConfig, "rtol", 0.0), (ToleranceConfig, "atol", -1e-3), (ToleranceConfig, "schedule_share", 1.1),
        (TrainerConfig, "steps", 0), (TrainerConfig, "batch_size", -1), (TrainerConfig, "window", 1),
        (TrainerConfig, "grad_clip", 0.0), (TrainerConfig, "average", 1.5), (TrainerConfig, "log_every", 0),
        (DeviceConfig, "threads", 0),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_out_of_range(group: type, setting: str, value: float):
    with pytest.raises(ConfigError, match=f"^{setting}: expected a number"):
        check(group(**{setting: value}), "")


def test_a_hint_names_the_nearest_option_and_all_of_them():
    assert did_you_mean("dopri", ["rk4", "dopri5"]) == "did you mean 'dopri5'? (choose from dopri5, rk4)"
    assert did_you_mean("xyz", ["rk4", "dopri5"]).strip("()") == "choose from dopri5, rk4"
