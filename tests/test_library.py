"""The library without Hydra: what is completed, mistakes in one line each, what training leaves of itself."""

from __future__ import annotations

import pytest

import node_runner as nr
from node_runner import library
from node_runner.errors import ConfigError
from node_runner.settings import FirstStates


@pytest.mark.parametrize("added", [{"first_states": FirstStates.learned}, {"shooting": 4}, {"residual": 0.1}], ids=str)
def test_what_is_learned_along_with_a_model_does_not_stay_with_it(added: dict[str, object]):
    data = library.dataset("pendulum", train=4, val=2, test=2, long=2, times=7)
    model = library.model("node", data, library.solver("midpoint"), field_settings={"width": 8})
    before = set(model.state_dict())
    metrics = library.fit(model, data, steps=3, batch_size=4, window=None, **added)
    assert set(model.state_dict()) == before
    assert ("residual" in added) == any(name.startswith("equation/") for name in metrics)


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
