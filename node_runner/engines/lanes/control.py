"""The choice of the step size as torchdiffeq makes it, for each of several solves that run side by side.

Source: torchdiffeq's `misc.py`; Hairer, Norsett and Wanner, Solving ODEs I, 2nd ed., section II.4. Step sizes h and
clocks are (N,) float64, error ratios and norms (N,) of the state's type.
"""

from __future__ import annotations

import torch
from torch import Tensor

from node_runner.types import Method


def attempted(method: Method, h: Tensor) -> Tensor:
    """The sizes of the attempts: a step that is not a number becomes the smallest one, which then fails."""
    smallest = method.options["min_step"]
    return torch.where(h.isfinite(), h, smallest).clamp(smallest, method.options["max_step"])


def acceptable(method: Method, h: Tensor, ratio: Tensor) -> Tensor:
    """Whether an attempt whose error is `ratio` times what the tolerance allows may stand, (N,)."""
    return (h <= method.options["min_step"]) | ((ratio <= 1) & (h <= method.options["max_step"]))


def next_step(method: Method, h: Tensor, ratio: Tensor) -> Tensor:
    """The sizes that follow attempts of size h."""
    options = method.options
    ratio = ratio.double()
    least = torch.where(ratio < 1, torch.ones_like(ratio), options["dfactor"])
    wanted = torch.maximum(options["safety"] / ratio ** (1 / (method.order or 1)), least)
    factor = torch.where(ratio == 0, options["ifactor"], wanted.clamp(max=options["ifactor"]))
    return (h * factor).clamp(options["min_step"], options["max_step"])


def guess(d0: Tensor, d1: Tensor) -> Tensor:
    """A first guess of the first step from the sizes of y and f."""
    return torch.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / d1)


def second_guess(method: Method, h0: Tensor, d1: Tensor, d2: Tensor) -> Tensor:
    """The first step, from the size of f and that of its change over the first guess."""
    flat = torch.maximum(torch.full_like(h0, 1e-6), h0 * 1e-3)
    curved = (0.01 / torch.where(d2 > d1, d2, d1)) ** (1 / (method.order or 1))
    return torch.minimum(100 * h0, torch.where((d1 <= 1e-15) & (d2 <= 1e-15), flat, curved)).double()
