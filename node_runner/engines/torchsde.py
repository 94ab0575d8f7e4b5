"""The engine of stochastic equations: torchsde runs the loop, this file counts and translates."""

from __future__ import annotations

import math
import time
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from node_runner.engines import ENGINES
from node_runner.errors import ConfigError
from node_runner.settings import Calculus
from node_runner.types import (
    DISCRETE,
    Dynamics,
    Engine,
    Gradient,
    Method,
    Norm,
    Solution,
    SolveStats,
    Stochastic,
    offers,
)


METHODS = {"euler_maruyama": "euler", "milstein": "milstein", "srk": "srk", "reversible_heun": "reversible_heun"}
"""Our names, and torchsde's."""


@ENGINES.register("torchsde", "torchsde's own loop, for models whose equation is stochastic")
class TorchsdeEngine(Engine):
    """Solves dy = f dt + g dW with diagonal noise by `torchsde.sdeint`, and adjoint=on by its `sdeint_adjoint`.

    The path of the Brownian motion follows from the field's `entropy` and the steps. Models give Ito's drift; a method
    in the sense of Stratonovich gets f_i - 1/2 g_i dg_i/dy_i. Times are counted in steps, so that each output of an
    even grid is the end of a step to the last bit; on an uneven grid outputs within a step lie on a straight line, as
    torchsde has it. An evaluation is one of the drift or one of the diffusion.

    The continuous adjoint of a method in the sense of Ito is solved by Milstein's method, and its gradient is that of
    the equation up to the steps' error; that of reversible_heun is the gradient of the computed numbers.

    Source: Li, Wong, Chen, Duvenaud, Scalable gradients for stochastic differential equations (2020).
    """

    name = "torchsde"
    adjoints = frozenset({"off", "on"})
    stochastic = True

    def __init__(self) -> None:
        pass

    def unsupported(self, method: Method) -> str | None:
        """Methods for stochastic equations, where torchsde is installed."""
        if method.calculus is None:
            return f"engine=torchsde solves stochastic equations, and solver={method.name} ordinary ones"
        if find_spec("torchsde") is None:
            return f"solver={method.name} needs torchsde, which is not installed: use `pip install 'node-runner[sde]'`"
        return None if method.name in METHODS else f"torchsde has no solver={method.name}: use euler_maruyama"

    def refuses(self, method: Method, f: Dynamics, y0: Tensor, norm: Norm | None, adjoint: str) -> str | None:
        """Fields without a diffusion."""
        if not offers(f, "diffusion"):
            return (
                f"solver={method.name} is for stochastic equations, and this model's is an ordinary one: "
                "use solver=dopri5"
            )
        return None

    def integrate(
        self, method: Method, f: Any, y0: Tensor, ts: Tensor, *, rtol: float, atol: float, norm: Norm | None,
        gradient: Gradient = DISCRETE,
    ) -> Solution:  # fmt: skip
        """Solve; see `node_runner.types.Integrate`. Steps are fixed, so tolerances and norm have no say."""
        import torchsde

        grid = in_steps(ts, method.options["step_size"])
        stats = SolveStats(accepted=math.ceil(float(grid.places[-1])))
        if len(ts) == 1:
            return Solution(ts, y0.unsqueeze(0), stats)
        counted = _Counted(f, method.calculus, grid, stats)
        path = torchsde.BrownianInterval(
            0.0, float(grid.places[-1]), size=y0.shape, dtype=y0.dtype, device=y0.device, entropy=f.entropy,
            levy_area_approximation="space-time" if method.name == "srk" else "none",
        )  # fmt: skip
        began = time.perf_counter()
        arguments = {"bm": path, "method": METHODS[method.name], "dt": 1.0}
        if gradient.adjoint == "on" and torch.is_grad_enabled():
            # torchsde cannot take tensors without elements, such as the weights of a constant diffusion.
            wanted = tuple(x for x in (*counted.parameters(), *f.captured) if x.numel())
            ys = torchsde.sdeint_adjoint(counted, y0, grid.places, adjoint_params=wanted, **arguments)
        else:
            ys = torchsde.sdeint(counted, y0, grid.places, **arguments)
        counted.forward_is_done = True
        stats.seconds_forward = time.perf_counter() - began
        return Solution(ts, ys, stats)


class Grid(NamedTuple):
    """Times t = start + step * place; places: (T,) in float64 on the CPU, from 0 on, a whole number of steps apart
    where the times are even.
    """

    start: float
    step: float
    places: Tensor


def in_steps(ts: Tensor, longest: float | None) -> Grid:
    """Steps of equal length for output times ts (T,), none longer than `longest`.

    Raises:
        ConfigError: times that do not increase.
    """
    times = ts.detach().double().cpu()
    gaps = times.diff()
    if len(gaps) and float(gaps.min()) <= 0:
        raise ConfigError("a stochastic equation is solved forward in time, and these times go back: use rising ones")
    step = float(gaps.mean()) if len(gaps) else 1.0
    # Times of float32 are even up to their rounding.
    even = len(gaps) and float((gaps - step).abs().max()) <= 1e-6 * max(float(times.abs().max()), step) + 1e-4 * step
    if not even and len(gaps):
        step = float(gaps.min())
    if longest is not None:
        step = step / math.ceil(step / longest - 1e-9)
    places = (times - times[0]) / step
    return Grid(float(times[0]), step, places.round() if even else places)


class _Counted(nn.Module):
    """The equation as torchsde sees it, in time counted in steps: f becomes h f, and g becomes h^(1/2) g."""

    noise_type = "diagonal"

    def __init__(self, field: Stochastic, calculus: Calculus | None, grid: Grid, stats: SolveStats) -> None:
        super().__init__()
        self.field, self.grid, self.stats = field, grid, stats
        self.stratonovich = calculus is Calculus.stratonovich
        self.sde_type = "stratonovich" if self.stratonovich else "ito"
        self.forward_is_done = False

    def f(self, place: Tensor, y: Tensor) -> Tensor:
        """Drift (B, D)."""
        self._count()
        t = self._time(place, y)
        drift = self.field(t, y)
        if self.stratonovich:
            drift = drift - 0.5 * self._along(t, y)
        return self.grid.step * drift

    def g(self, place: Tensor, y: Tensor) -> Tensor:
        """Diffusion (B, D)."""
        self._count()
        return math.sqrt(self.grid.step) * self.field.diffusion(self._time(place, y), y)

    def _along(self, t: Tensor, y: Tensor) -> Tensor:
        """g_i dg_i/dy_i (B, D)."""
        differentiable = torch.is_grad_enabled()
        self._count()
        with torch.enable_grad():
            y = y if y.requires_grad else y.detach().requires_grad_()
            g = self.field.diffusion(t, y)
            if not g.requires_grad:
                return torch.zeros_like(y)
            found = torch.autograd.grad(g, y, g, create_graph=differentiable, allow_unused=True)[0]
        return torch.zeros_like(y) if found is None else found

    def _time(self, place: Tensor, y: Tensor) -> Tensor:
        # Filled there: a number copied to the device would wait for it, at every evaluation.
        return y.new_full((), self.grid.start + self.grid.step * float(place))

    def _count(self) -> None:
        if self.forward_is_done:
            self.stats.nfe_backward += 1
            self.stats.accepted_backward = self.stats.accepted
        else:
            self.stats.nfe_forward += 1
