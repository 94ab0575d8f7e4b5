"""States of any shape (..., D) as a batch of vectors, which is what engines solve."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from node_runner.forms import FieldForm


def flat(state: Tensor) -> Tensor:
    """(..., D) -> (B, D), of (D,) with B = 1."""
    return state.reshape(-1, state.shape[-1])


class Flattened:
    """A field of states of one shape (..., D) as one of states (B, D).

    Args:
        field: f(t, y), y of `shape`.
        shape: (..., D).
        form: what the field is made of.
    """

    def __init__(self, field: Callable[..., Any], shape: torch.Size, form: FieldForm) -> None:
        self.field = field
        self.shape = shape
        self._form = form

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        """t: (), y: (B, D) -> (B, D)."""
        return flat(self.field(t, y.view(self.shape)))

    def form(self) -> FieldForm:
        """What it is made of, for engines that write it out."""
        return self._form
