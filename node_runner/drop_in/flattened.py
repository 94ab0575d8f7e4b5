"""States of any shape as engines solve them: a batch of vectors, or a tuple of tensors in one vector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from node_runner.drop_in.counting import Counter, uncounted
from node_runner.forms import FieldForm


def flat(state: Tensor) -> Tensor:
    """(..., D) -> (B, D), of (D,) with B = 1."""
    return state.reshape(-1, state.shape[-1])


class Flattened:
    """A field of states of one shape (..., D) as one of states (B, D).

    Args:
        field: f(t, y), y of `shape`.
        shape: (..., D).
        form: what the field is made of.
    """

    def __init__(self, field: Callable[..., Any], shape: torch.Size, form: FieldForm) -> None:
        self.field = field
        self.shape = shape
        self._form = form

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        """t: (), y: (B, D) -> (B, D)."""
        return flat(self.field(t, y.view(self.shape)))

    def form(self) -> FieldForm:
        """What it is made of, for engines that write it out."""
        return self._form


def joined(parts: Sequence[Tensor], *leading: int) -> Tensor:
    """The parts of a tuple, each (*leading, *shape) -> (*leading, n)."""
    return torch.cat([part.reshape(*leading, -1) for part in parts], dim=-1)


def parts_of(y: Tensor, shapes: Sequence[torch.Size]) -> tuple[Tensor, ...]:
    """(..., n) -> the parts of a tuple, each (..., *shape)."""
    parts, end = [], 0
    for shape in shapes:
        begin, end = end, end + shape.numel()
        parts.append(y[..., begin:end].view(*y.shape[:-1], *shape))
    return tuple(parts)


class Joined(nn.Module):
    """A field of a tuple as one of a vector.

    Args:
        field: f(t, y), y a tuple.
        shapes: of its parts.
    """

    def __init__(self, field: nn.Module, shapes: Sequence[torch.Size]) -> None:
        super().__init__()
        self.field = field
        self.shapes = tuple(shapes)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """t: (), y: (n,) -> (n,)."""
        return joined(self.field(t, parts_of(y, self.shapes)))


class Compilable(nn.Module):
    """A field of users as one of one tensor, which leaves what it counts as it is.

    Args:
        field: f(t, y).
        shapes: of the parts of y, if it is a tuple.
        counters: what the field counts.

    Attributes:
        counted: the same, for those that read a field.
    """

    def __init__(self, field: nn.Module, shapes: Sequence[torch.Size] | None, counters: Sequence[Counter]) -> None:
        super().__init__()
        self.field = field if shapes is None else Joined(field, shapes)
        self.counters = tuple(counters)

    @property
    def counted(self) -> tuple[tuple[nn.Module, str], ...]:
        return tuple((owner, name) for owner, name, _ in self.counters)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """t: (), y: as it is, or (n,) of a tuple -> the same."""
        with uncounted(self.counters):
            result: Tensor = self.field(t, y)
        return result


class Largest:
    """The norm of a tuple in one vector, as torchdiffeq has it: the largest RMS of a part.

    Args:
        shapes: of the parts.
    """

    def __init__(self, shapes: Sequence[torch.Size]) -> None:
        self.shapes = tuple(shapes)

    def __call__(self, y: Tensor) -> Tensor:
        """y: (n,) -> ()."""
        return torch.stack([part.abs().pow(2).mean().sqrt() for part in parts_of(y, self.shapes)]).amax()
