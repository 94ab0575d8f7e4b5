"""Stochastic equations for models: drifts, diffusions, and the distance between two that share their diffusion."""

from __future__ import annotations

import math
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from node_runner.types import Dynamics


FLOOR = 1e-3
"""Least diffusion, in standardised units: the distance of two equations is divided by it."""


class Equation(nn.Module):
    """dy = f(t, y) dt + g(y) dW in the sense of Ito, with the key of its path drawn from torch's generator.

    Args:
        drift: f, of y (B, D).
        diffusion: g, (B, D) -> (B, D), coordinate by coordinate.
        captured: tensors beside the parameters through which the solution is to be differentiated.
    """

    time_dependent = True

    def __init__(self, drift: Dynamics, diffusion: nn.Module, captured: tuple[Tensor, ...] = ()) -> None:
        super().__init__()
        self.drift, self.volatility, self.captured = drift, diffusion, captured
        self.entropy = path_key()

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """The drift (B, D)."""
        return self.drift(t, y)

    def diffusion(self, t: Tensor, y: Tensor) -> Tensor:
        """The diffusion (B, D)."""
        g: Tensor = self.volatility(y)
        return g


class Guided(Equation):
    """A posterior equation beside its prior, state (y, l): dl = |u|^2 / 2 dt with u = (f - h) / g.

    The mean of l at the end is the KL divergence of the posterior's paths from the prior's, by Girsanov's theorem: Li,
    Wong, Chen, Duvenaud, Scalable gradients for stochastic differential equations (2020), section 5.

    Args:
        drift: f of the posterior.
        prior: h.
        diffusion: g of both.
        captured: as for `Equation`.
    """

    def __init__(
        self, drift: Dynamics, prior: Dynamics, diffusion: nn.Module, captured: tuple[Tensor, ...] = ()
    ) -> None:
        super().__init__(drift, diffusion, captured)
        self.prior = prior

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """Drift (B, D + 1) of y (B, D) and l (B, 1)."""
        state = y[:, :-1]
        f = self.drift(t, state)
        u = (f - self.prior(t, state)) / self.volatility(state)
        return torch.cat((f, 0.5 * u.square().sum(dim=1, keepdim=True)), dim=1)

    def diffusion(self, t: Tensor, y: Tensor) -> Tensor:
        """Diffusion (B, D + 1): l has none."""
        return F.pad(self.volatility(y[:, :-1]), (0, 1))


class Diagonal(nn.Module):
    """g_i(y_i) > 0: each coordinate has a network of its own, with one hidden layer.

    Args:
        dim: D.
        hidden: width of each network (0: g is constant).
        start: size of g before training.
    """

    def __init__(self, dim: int, hidden: int, start: float) -> None:
        super().__init__()
        self.slope, self.place = (nn.Parameter(torch.randn(dim, hidden)) for _ in range(2))
        self.weight = nn.Parameter(0.1 * torch.randn(dim, hidden) / math.sqrt(max(hidden, 1)))
        self.bias = nn.Parameter(torch.full((dim,), start + math.log(-math.expm1(-start))))  # softplus's inverse

    def forward(self, y: Tensor) -> Tensor:
        """(B, D) -> (B, D)."""
        found = (torch.tanh(self.slope * y.unsqueeze(-1) + self.place) * self.weight).sum(dim=-1) + self.bias
        return F.softplus(found) + FLOOR


def path_key() -> int:
    """Key of a Brownian path, from torch's generator on the CPU: a run's seed and its steps so far decide it."""
    return int(torch.randint(2**62, ()))
