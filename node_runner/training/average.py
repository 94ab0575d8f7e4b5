"""The moving average of a model's weights."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn


class MovingAverage:
    """Exponential moving average of all parameters: average += (1 - decay) (weights - average).

    It begins as a copy of the weights after the first step. torch's AveragedModel computes the same numbers,
    but reads its count of updates from the device in every step.

    Args:
        model: whose weights are averaged.
        decay: of the average.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.begun = False
        self._model, self._averaged = model, copy.deepcopy(model)
        self._current = [parameter.detach() for parameter in model.parameters()]
        self._average = [parameter.detach() for parameter in self._averaged.parameters()]

    def update(self) -> None:
        """Take in the weights as they are now."""
        if self.begun:
            torch._foreach_lerp_(self._average, self._current, 1 - self.decay)
        else:
            torch._foreach_copy_(self._average, self._current)
            self.begun = True

    def model(self) -> nn.Module:
        """A model with the averaged parameters, and with the buffers as they are now."""
        for mine, theirs in zip(self._averaged.buffers(), self._model.buffers(), strict=True):
            mine.copy_(theirs)
        return self._averaged

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"begun": self.begun, "model": self._averaged.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`."""
        self.begun = state["begun"]
        self._averaged.load_state_dict(state["model"])
