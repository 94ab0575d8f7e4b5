"""The library face: what a notebook completes, and mistakes in it, one line each."""

from __future__ import annotations

import pytest

import node_runner as nr
from node_runner.errors import ConfigError


def test_what_can_be_used_is_completed():
    assert {"dataset", "solver", "model", "fit", "odeint", "odeint_adjoint", "explain"} <= set(dir(nr))
    assert all(getattr(nr, name) is not None for name in nr.__all__)


def test_tolerances_and_training_are_checked_as_settings_are():
    with pytest.raises(ConfigError, match=r"tolerance.rtol: Value 'x'"):
        nr.solver("dopri5", rtol="x")
    with pytest.raises(ConfigError, match=r"tolerance.atol: expected a number above 0, got -1.0"):
        nr.solver("dopri5", atol=-1)
    data = nr.dataset("spiral", train=2, val=2, test=2, long=2, times=8)
    model = nr.model("node", data, nr.solver("midpoint"))
    with pytest.raises(ConfigError, match=r"trainer.stepz: no such setting; did you mean 'steps'"):
        nr.fit(model, data, stepz=5)
    with pytest.raises(ConfigError, match=r"trainer.steps: Value 'many'"):
        nr.fit(model, data, steps="many")


def test_names_in_the_place_of_parts_are_refused_with_what_makes_the_part():
    with pytest.raises(ConfigError, match=r"use nr.dataset\('spiral'\)"):
        nr.model("node", "spiral", nr.solver())
    with pytest.raises(ConfigError, match=r"use nr.solver\('rk4'\)"):
        nr.model("node", nr.dataset("spiral"), "rk4")
