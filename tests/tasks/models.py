"""Stand-ins for models: they predict what a test tells them to, and remember what they were asked."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from node_runner.learning import ModelOutput
from node_runner.types import SolveStats


class Constant(nn.Module):
    """Predicts the initial state for ever, plus an offset that can be trained."""

    def __init__(self, dim: int, offset: float = 0.0, penalties: dict[str, float] | None = None) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.full((dim,), offset, dtype=torch.float64))
        self.penalties = penalties or {}
        self.asked: list[tuple[Tensor, Tensor, Tensor | None]] = []

    def forward(self, y0: Tensor, ts: Tensor, t0: Tensor | None = None) -> ModelOutput:
        self.asked.append((y0, ts, t0))
        value = (y0 + self.offset).expand(len(ts), *y0.shape)
        penalties = {name: torch.tensor(size, dtype=torch.float64) for name, size in self.penalties.items()}
        return ModelOutput(value, [SolveStats(nfe_forward=10)], penalties)


class Logits(nn.Module):
    """Takes the input for the logits."""

    def __init__(self, penalties: dict[str, float] | None = None) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))
        self.penalties = penalties or {}
        self.batches: list[int] = []

    def forward(self, x: Tensor) -> ModelOutput:
        self.batches.append(len(x))
        penalties = {name: torch.tensor(size, dtype=torch.float64) for name, size in self.penalties.items()}
        return ModelOutput(x * self.scale, [SolveStats(nfe_forward=4 + len(self.batches))], penalties)


class Normal(nn.Module):
    """A normal log-density about a mean that can be trained."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(dim, dtype=torch.float64))
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> ModelOutput:
        self.seen.append(x)
        value = torch.distributions.Normal(self.mean, 1.0, validate_args=False).log_prob(x).sum(1)
        return ModelOutput(value, [SolveStats(nfe_forward=7)], {})
