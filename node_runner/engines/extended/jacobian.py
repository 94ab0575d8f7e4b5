"""The Jacobian of a field in blocks: which numbers depend on one another is guessed from the shape, then checked."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from node_runner.errors import SolveFailed


LARGEST = 4096
"""Numbers that may depend on one another: beyond it, their Jacobian does not fit in a step."""


class Blocks(NamedTuple):
    """A Jacobian that is zero outside square blocks.

    Attributes:
        numbers: (G, m) positions in the flattened state: the numbers of each block. No field's value depends on
            any other number of the state.
        values: (G, m, m) derivative of the i-th by the j-th.
    """

    numbers: Tensor
    values: Tensor


def blocks_of(dy: Tensor, y: Tensor, hint: Tensor | None) -> Blocks:
    """The Jacobian of dy by y, both of one shape, exactly: by vector-Jacobian products.

    Blocks are looked for in this order: `hint`; the rows of a state (B, D...), if no sample feels another;
    one block of all numbers that anything depends on. A product with a random vector tells whether a guess holds.

    Args:
        dy: the field's value, computed from y with autograd on.
        y: state that requires grad.
        hint: (G, m) a guess.

    Raises:
        SolveFailed: the one block is too large.
    """
    for index in (hint, _rows(y)):
        if index is not None:
            values = _values(dy, y, index)
            if _holds(dy, y, index, values):
                return Blocks(index, values)
    used = _pulled(dy, y, _noise(y)).nonzero().view(1, -1)
    if used.numel() > LARGEST:
        raise SolveFailed(
            f"an implicit method needs the Jacobian of all numbers that depend on one another, and here these are "
            f"{used.numel()} (at most {LARGEST}): give a state (B, D) whose samples are independent, or use an "
            "explicit method"
        )
    return Blocks(used, _values(dy, y, used))


def _rows(y: Tensor) -> Tensor | None:
    """Positions (B, n) of the numbers of each sample of a state (B, D...); None where there are no two samples."""
    if y.ndim < 2 or len(y) < 2 or y.numel() == 0:
        return None
    return torch.arange(y.numel(), device=y.device).view(len(y), -1)


def _values(dy: Tensor, y: Tensor, index: Tensor) -> Tensor:
    """Values (G, m, m) of the blocks at `index` of a Jacobian that has no others; a product gives a row of each."""
    rows = []
    for positions in index.unbind(dim=1):
        cotangent = y.new_zeros(y.numel())
        cotangent[positions] = 1
        rows.append(_pulled(dy, y, cotangent)[index])
    return torch.stack(rows, dim=1) if rows else y.new_zeros(*index.shape, 0)


def _holds(dy: Tensor, y: Tensor, index: Tensor, values: Tensor) -> bool:
    """Whether the Jacobian is these blocks and nothing else."""
    noise = _noise(y)
    inside = torch.zeros_like(noise)
    inside[index] = noise[index]
    expected, scale = torch.zeros_like(noise), torch.zeros_like(noise)
    expected[index] = torch.einsum("gi,gij->gj", noise[index], values)
    scale[index] = torch.einsum("gi,gij->gj", noise[index].abs(), values.abs())
    slack = 1e4 * torch.finfo(y.dtype).eps * scale.max()
    if not bool(((_pulled(dy, y, inside) - expected).abs() <= slack).all()):
        return False
    if index.numel() == y.numel():
        return True
    outside = torch.ones_like(noise, dtype=torch.bool)
    outside[index] = False
    return bool((_pulled(dy, y, noise)[outside] == 0).all())


def _pulled(dy: Tensor, y: Tensor, cotangent: Tensor) -> Tensor:
    """(n,) the product of a cotangent (n,) and the Jacobian."""
    if not dy.requires_grad:
        return torch.zeros_like(cotangent)
    (product,) = torch.autograd.grad(dy, y, cotangent.view_as(dy), retain_graph=True, allow_unused=True)
    return torch.zeros_like(cotangent) if product is None else product.reshape(-1)


def _noise(y: Tensor) -> Tensor:
    """(n,) random numbers, the same ones each time, none of them near zero."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(y.numel(), generator=generator, dtype=torch.float64) + 0.5
    signs = torch.randint(0, 2, (y.numel(),), generator=generator) * 2 - 1
    return (noise * signs).to(y)
