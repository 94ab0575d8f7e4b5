"""The textbook run as a script on torchdiffeq: 250 epochs on one cubic spiral, whole trajectory, nothing kept.

What `bench_textbook.py` times node-run against. The same data, network, tolerance and optimiser.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchdiffeq import odeint


torch.set_num_threads(1)
torch.manual_seed(0)

TIMES = torch.linspace(0.0, 7.0, 160)
MATRIX = torch.tensor([[-0.1, 2.0], [-2.0, -0.1]], dtype=torch.float64)


class Field(nn.Module):
    """2-32-2 tanh."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 2))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """(B, 2) -> (B, 2)."""
        return self.net(y)


def main() -> None:
    """Make the data and train."""
    start = torch.tensor([[2.0, 0.0]])
    with torch.no_grad():
        truth = odeint(lambda t, y: y**3 @ MATRIX, start.double(), TIMES.double(), rtol=1e-10, atol=1e-12).float()
    field = Field()
    optimizer = torch.optim.Adam(field.parameters(), lr=5e-3)
    for epoch in range(1, 251):
        optimizer.zero_grad()
        loss = (odeint(field, start, TIMES, rtol=1e-3, atol=1e-4) - truth).square().mean()
        loss.backward()
        optimizer.step()
        if epoch % 50 == 0:
            print(f"epoch {epoch} loss {loss.item():.4f}")


if __name__ == "__main__":
    main()
