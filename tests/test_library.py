"""The library without Hydra: what training leaves of itself."""

from __future__ import annotations

import pytest

from node_runner import library
from node_runner.settings import FirstStates


@pytest.mark.parametrize("added", [{"first_states": FirstStates.learned}, {"shooting": 4}, {"residual": 0.1}], ids=str)
def test_what_is_learned_along_with_a_model_does_not_stay_with_it(added: dict[str, object]):
    data = library.dataset("pendulum", train=4, val=2, test=2, long=2, times=7)
    model = library.model("node", data, library.solver("midpoint"), field_settings={"width": 8})
    before = set(model.state_dict())
    metrics = library.fit(model, data, steps=3, batch_size=4, window=None, **added)
    assert set(model.state_dict()) == before
    assert ("residual" in added) == any(name.startswith("equation/") for name in metrics)
