"""The K-th derivative of a solution, where it is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from node_runner.models.parts.block import ODEBlock
from node_runner.regularisers.taylor import Taylor
from tests.models.builders import LinearField, accurate_solve


@pytest.mark.parametrize("order", [2, 3, 4])
def test_of_a_linear_field_it_is_a_power_of_the_matrix(order: int):
    a = torch.tensor([[0.3, -1.0], [0.6, -0.5]], dtype=torch.float64)
    y = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    t, field = torch.tensor(0.0, dtype=torch.float64), LinearField(a.tolist())
    value = Taylor(order=order).begin(y)(t, y, field(t, y))
    expected = (y @ torch.linalg.matrix_power(a, order).T).square().mean(dim=1)
    torch.testing.assert_close(value, expected)


class Chirp(nn.Module):
    """dy/dt = t^2 y: y = y0 exp(t^3 / 3), with d2y/dt2 = (2t + t^4) y and d3y/dt3 = (2 + 6 t^3 + t^6) y."""

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return t**2 * y


@pytest.mark.parametrize(
    ("order", "factor"), [(2, lambda t: 2 * t + t**4), (3, lambda t: 2 + 6 * t**3 + t**6)], ids=["2", "3"]
)
def test_the_explicit_dependence_on_time_counts(order: int, factor):
    block = ODEBlock(lambda shape: Chirp(), accurate_solve(), {"taylor": Taylor(order=order)}, (1,)).double().train()
    y0 = torch.tensor([[1.0], [0.5]], dtype=torch.float64)
    penalty = block(y0, torch.tensor([0.0, 1.0], dtype=torch.float64)).penalties["taylor"]
    t = torch.linspace(0, 1, 20_001, dtype=torch.float64)
    along = (factor(t) * torch.exp(t**3 / 3)) ** 2
    expected = float(torch.trapezoid(along, t)) * (1 + 0.25) / 2
    assert float(penalty.detach()) == pytest.approx(expected, rel=1e-4)
