"""What a neural ODE with events is made of beside its field: the event function and the jump."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class EventFunction(nn.Module):
    """g(y) = w . y + b (+ a small network): an event happens where g falls through zero.

    Begins as the axis `axis` of the standardised state, one standard deviation below its mean, so that
    trajectories cross it and the place of the surface has a gradient.

    Args:
        dim: of the state.
        axis: along which the surface is looked for at first.
        hidden: width of the network that is added (0: none, the surface is a plane).
    """

    def __init__(self, dim: int, axis: int, hidden: int) -> None:
        super().__init__()
        self.plane = nn.Linear(dim, 1)
        self.bend = residual(dim, hidden, 1) if hidden else None
        with torch.no_grad():
            self.plane.weight.zero_()[0, axis] = 1.0
            self.plane.bias.fill_(1.0)

    def forward(self, y: Tensor) -> Tensor:
        """(..., D) -> (...)."""
        g = self.plane(y)
        return (g if self.bend is None else g + self.bend(y)).squeeze(-1)

    def slope(self, y: Tensor, dy: Tensor) -> Tensor:
        """dg/dt (B,) at y (B, D) along dy (B, D), detached."""
        with torch.enable_grad():
            y = y.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(self(y).sum(), y)
        return (gradient * dy.detach()).sum(dim=-1)


class Jump(nn.Module):
    """y+ = A y- + b (+ a small network); it begins as the identity: an event changes nothing.

    Args:
        dim: of the state.
        hidden: width of the network that is added (0: none).
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.affine = nn.Linear(dim, dim)
        self.bend = residual(dim, hidden, dim) if hidden else None
        with torch.no_grad():
            self.affine.weight.copy_(torch.eye(dim))
            self.affine.bias.zero_()

    def forward(self, y: Tensor) -> Tensor:
        """(B, D) -> (B, D)."""
        after: Tensor = self.affine(y)
        return after if self.bend is None else after + self.bend(y)


def residual(dim: int, hidden: int, out: int) -> nn.Sequential:
    """One tanh layer and a linear one that begins at zero."""
    last = nn.Linear(hidden, out)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(dim, hidden), nn.Tanh(), last)
