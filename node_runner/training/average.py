"""The moving average of a model's weights."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn


class MovingAverage:
    """Exponential moving average of all parameters: weights of k steps ago count as decay^k.

    After t steps average += (1 - decay) / (1 - decay^t) (weights - average), so that the shares of all steps sum to one
    (as Adam's averages are corrected: Kingma and Ba, 2015, section 3). Without the correction the weights after the
    first step would count as all that came before them, and a short training would look as if it had not begun.

    Args:
        model: whose weights are averaged.
        decay: of the average.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self._model, self._averaged = model, copy.deepcopy(model)
        self._current = [parameter.detach() for parameter in model.parameters()]
        self._average = [parameter.detach() for parameter in self._averaged.parameters()]

    def update(self) -> None:
        """Take in the weights as they are now."""
        self.steps += 1
        share = (1 - self.decay) / (1 - self.decay**self.steps)
        torch._foreach_lerp_(self._average, self._current, share)

    def model(self) -> nn.Module:
        """A model with the averaged parameters, and with the buffers as they are now."""
        for mine, theirs in zip(self._averaged.buffers(), self._model.buffers(), strict=True):
            mine.copy_(theirs)
        return self._averaged

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"steps": self.steps, "model": self._averaged.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`."""
        self.steps = state["steps"]
        self._averaged.load_state_dict(state["model"])
