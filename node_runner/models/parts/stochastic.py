"""Stochastic equations for models: drifts, diffusions, and the distance between two that share their diffusion."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Equation(nn.Module):
    """dy = f(t, y) dt + g(y) dW in the sense of Ito.

    Args:
        drift: f, (t, y (B, D)) -> (B, D).
        diffusion: g, (B, D) -> (B, D), coordinate by coordinate.
        entropy: key of the Brownian path.
        captured: tensors beside the parameters through which the solution is to be differentiated.
    """

    time_dependent = True

    def __init__(self, drift: nn.Module, diffusion: nn.Module, entropy: int, captured: tuple[Tensor, ...] = ()) -> None:
        super().__init__()
        self.drift, self.volatility = drift, diffusion
        self.entropy, self.captured = entropy, captured

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """The drift (B, D)."""
        f: Tensor = self.drift(t, y)
        return f

    def diffusion(self, t: Tensor, y: Tensor) -> Tensor:
        """The diffusion (B, D)."""
        g: Tensor = self.volatility(y)
        return g


class Guided(Equation):
    """A posterior equation beside its prior, with state (y, l): dy = (h + g u) dt + g dW, dl = |u|^2 / 2 dt.

    The mean of l at the end is the KL divergence of the posterior's paths from those of the prior, dy = h dt + g dW, by
    Girsanov's theorem: Li, Wong, Chen, Duvenaud, Scalable gradients for stochastic differential equations (2020),
    section 5, whose u is this one and whose posterior drift is h + g u.

    Args:
        control: u, (t, y (B, D)) -> (B, D).
        prior: h.
        diffusion: g of both.
        entropy, captured: as for `Equation`.
    """

    def __init__(
        self,
        control: nn.Module,
        prior: nn.Module,
        diffusion: nn.Module,
        entropy: int,
        captured: tuple[Tensor, ...] = (),
    ) -> None:
        super().__init__(prior, diffusion, entropy, captured)
        self.control = control

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """Drift (B, D + 1) of y (B, D) and l (B, 1)."""
        state = y[:, :-1]
        u = self.control(t, state)
        f = super().forward(t, state) + super().diffusion(t, state) * u
        return torch.cat((f, 0.5 * u.square().sum(dim=1, keepdim=True)), dim=1)

    def diffusion(self, t: Tensor, y: Tensor) -> Tensor:
        """Diffusion (B, D + 1): l has none."""
        return F.pad(super().diffusion(t, y[:, :-1]), (0, 1))


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
        return F.softplus(found)


def path_key(generator: torch.Generator | None = None) -> int:
    """Key of a Brownian path, from torch's generator on the CPU: a run's seed and its steps so far decide it."""
    return int(torch.randint(2**62, (), generator=generator))


def normal_draws(count: int, like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Standard normal numbers (count, *like.shape), the same on every device."""
    draws = torch.randn(count, *like.shape, generator=generator, dtype=torch.float64)
    return draws.to(like.device, like.dtype)
