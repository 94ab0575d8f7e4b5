"""The discrete twin of a solve: residual layers that share one field."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from node_runner.types import Dynamics, Norm, Solution, SolveStats


class Layers:
    """y_{k+1} = y_k + h f(t_k, y_k): `per_output` layers from each output time to the next, h its share of the way.

    Stands where a model expects a solve. Nothing is solved: no tolerance, no adjoint and no solver plays a part, and
    the states are what the layers compute, whatever a differential equation would say.

    Args:
        per_output: layers between two output times.

    Source: He, Zhang, Ren, Sun, Deep Residual Learning (2016); with the step, Chen et al., Neural Ordinary
    Differential Equations (2018), equation 1.
    """

    def __init__(self, per_output: int = 1) -> None:
        self.per_output = per_output

    def __call__(self, f: Dynamics, y0: Tensor, ts: Tensor, *, norm: Norm | None = None) -> Solution:
        """States (T, B, D...) at ts (T,), the first of them y0; each evaluation of f counts in the statistics."""
        began = time.perf_counter()
        ts = ts.to(y0.dtype)
        states, y = [y0], y0
        steps = ts.diff() / self.per_output
        for start, h in zip(ts[:-1].unbind(), steps.unbind(), strict=True):
            for layer in range(self.per_output):
                y = y + h * f(start + layer * h, y)
            states.append(y)
        count = self.per_output * len(steps)
        stats = SolveStats(nfe_forward=count, accepted=count, seconds_forward=time.perf_counter() - began)
        return Solution(ts, torch.stack(states), stats)
