"""Fields that conserve an energy: the symplectic gradient of a network."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Hamiltonian(nn.Module):
    """dq/dt = dH/dp, dp/dt = -dH/dq for a state [q, p] (B, 2n), H the sum of a network's outputs.

    With field=mlp the sum is a perceptron with one output. A state of which each axis is measured in a unit of its
    own, q_i = a_i q'_i and p_i = b_i p'_i, keeps this form if the equations of pair i are divided by a_i b_i.

    Args:
        network: (t, [q, p]) -> (B, 2n), summed to the energy.
        scale: (2n,) units of the axes, [a, b].

    Source: Greydanus, Dzamba, Yosinski, Hamiltonian Neural Networks (2019).
    """

    pairs: Tensor

    def __init__(self, network: nn.Module, scale: Tensor) -> None:
        super().__init__()
        self.network = network
        self.time_dependent = getattr(network, "time_dependent", True)
        a, b = scale.chunk(2)
        # Only ratios matter, the network learns the common factor.
        rates = 1 / (a * b)
        self.register_buffer("pairs", rates / rates.log().mean().exp())

    def energy(self, t: Tensor, y: Tensor) -> Tensor:
        """H (B,) at t () or (B,) and y (B, 2n)."""
        total: Tensor = self.network(t, y).sum(dim=1)
        return total

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """t: () or (B,), y: (B, 2n) -> (B, 2n)."""
        tracked = torch.is_grad_enabled()
        # H is differentiated by y, also inside a solve that keeps no graph.
        with torch.enable_grad():
            if not tracked or not y.requires_grad:
                y = y.detach().requires_grad_(True)
            (slope,) = torch.autograd.grad(self.energy(t, y).sum(), y, create_graph=tracked)
        by_q, by_p = slope.chunk(2, dim=1)
        return torch.cat((self.pairs * by_p, -self.pairs * by_q), dim=1)


class Separable(nn.Module):
    """T(t, p) + V(t, q) in place of a network of the whole state, for `Hamiltonian`: (B, 2n) -> (B, 2n).

    Args:
        kinetic, potential: (t, p) and (t, q) -> (B, n), each summed to its share of the energy.
    """

    def __init__(self, kinetic: nn.Module, potential: nn.Module) -> None:
        super().__init__()
        self.kinetic, self.potential = kinetic, potential
        self.time_dependent = any(getattr(part, "time_dependent", True) for part in (kinetic, potential))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """t: () or (B,), y: (B, 2n) -> (B, 2n)."""
        q, p = y.chunk(2, dim=1)
        return torch.cat((self.potential(t, q), self.kinetic(t, p)), dim=1)
