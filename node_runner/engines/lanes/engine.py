"""engine=lanes: adaptive methods with a step size for each sample, for any field that takes a time for each."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn

from node_runner.engines import ENGINES
from node_runner.engines.failures import imprecise, unheard, unstored
from node_runner.engines.lanes.solve import LaneSolve
from node_runner.engines.lanes.taking import unfit
from node_runner.errors import ConfigError
from node_runner.settings import Batching
from node_runner.types import DISCRETE, Dynamics, Engine, Gradient, Method, Norm, Solution, offers


@ENGINES.register("lanes", "a step size for each sample, in plain PyTorch: solver.batching=per_sample for any field")
class LanesEngine(Engine):
    """Samples side by side, none of which pays for its neighbour's stiffness (solver.batching=per_sample).

    The control of each sample's step is torchdiffeq's, so that a sample takes the steps it would take alone.
    The gradient is that of the computed numbers by autograd, with step sizes as constants; a continuous adjoint is
    solved backward with one step size, since the gradient of the parameters is common to all samples.

    The field is called with t (B,) and treats each sample by itself: both are found out before the first solve.
    """

    name = "lanes"
    adjoints = frozenset({"off"})

    def __init__(self) -> None:
        self._verdicts: dict[Any, str | None] = {}

    def unsupported(self, method: Method) -> str | None:
        """Adaptive explicit Runge-Kutta methods with batching=per_sample."""
        if method.tableau is None or not method.adaptive:
            return f"engine=lanes runs Runge-Kutta methods that choose their step, and solver={method.name} is none"
        if method.batching is Batching.shared:
            return "engine=lanes is for solver.batching=per_sample"
        return None

    def refuses(self, method: Method, f: Dynamics, y0: Tensor, norm: Norm | None, adjoint: str) -> str | None:
        """Fields that do not take a time for each sample, or whose samples feel one another."""
        if offers(f, "note"):
            return unheard("lanes")
        if reason := unstored("lanes", adjoint) or imprecise("lanes", y0):
            return reason
        if y0.ndim < 2:
            return f"engine=lanes needs a batch of states (B, D...), got {tuple(y0.shape)}: use solver.batching=shared"
        if len(y0) < 2 or y0.numel() == 0:
            return None  # one time is as good as the other
        key = _code(f)
        if key not in self._verdicts:
            reason = unfit(f, y0.detach())
            why = f"engine=lanes cannot serve this field, which {reason}: use solver.batching=shared"
            self._verdicts[key] = None if reason is None else why
        return self._verdicts[key]

    def integrate(
        self, method: Method, f: Dynamics, y0: Tensor, ts: Tensor, *, rtol: float, atol: float, norm: Norm | None,
        gradient: Gradient = DISCRETE,
    ) -> Solution:  # fmt: skip
        """Solve; see `node_runner.types.Integrate`.

        Raises:
            ConfigError: a gradient is wanted for the output times.
        """
        if torch.is_grad_enabled() and ts.requires_grad:
            raise ConfigError("engine=lanes gives no gradient for the output times: use solver.batching=shared")
        began = time.perf_counter()
        solve = LaneSolve(method, f, y0, ts, rtol, atol, norm)
        ys = solve.run()
        solve.stats.seconds_forward = time.perf_counter() - began
        return Solution(ts.to(y0.dtype), ys, solve.stats)


def _code(f: Dynamics) -> Any:
    """A key that fields with the same code share, whatever their numbers: they take the time in the same way."""
    if isinstance(f, nn.Module):
        return tuple((type(module), module.training) for module in f.modules())
    return getattr(f, "__code__", f)
