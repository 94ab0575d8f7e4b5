"""Great circles in the base of a flow."""

from __future__ import annotations

import math

import pytest
import torch

from node_runner.cli.sample.interpolation import great_circle


def test_half_way_between_two_axes_is_the_diagonal():
    a, b = torch.tensor([[2.0, 0.0]]).double(), torch.tensor([[0.0, 4.0]]).double()
    found = great_circle(a, b, torch.tensor(0.5).double())
    torch.testing.assert_close(found, torch.tensor([[3.0, 3.0]]).double() / math.sqrt(2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_arc_keeps_to_the_shell_and_begins_and_ends_where_it_should(dtype: torch.dtype):
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(7, 50, generator=generator, dtype=dtype) for _ in range(2))
    a, b = a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True)
    before = None
    for share in torch.linspace(0, 1, 6, dtype=dtype):
        point = great_circle(a, b, share)
        torch.testing.assert_close(point.norm(dim=1), torch.ones(7, dtype=dtype))
        step = None if before is None else (point - before).norm(dim=1)
        if share == 0:
            torch.testing.assert_close(point, a)
        elif share == 1:
            torch.testing.assert_close(point, b)
        if step is not None:  # even steps: a fifth of the angle each
            angle = torch.arccos((a * b).sum(dim=1)) / 5
            torch.testing.assert_close(step, 2 * (angle / 2).sin(), rtol=1e-3, atol=0)
        before = point


def test_points_that_are_equal_or_at_the_origin_give_numbers():
    a = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    for share in torch.linspace(0, 1, 3):
        torch.testing.assert_close(great_circle(a, a, share), a)
