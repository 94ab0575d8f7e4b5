"""What is integrated: the field's states, or the augmented system of a continuous adjoint, in parts.

A state is one tensor between steps and a tuple of parts within one, so that a step computes of each part only what
it needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from node_runner.types import Dynamics, Norm


Parts = tuple[Tensor, ...]


def rms(x: Tensor) -> Tensor:
    """Root mean square of all elements, ()."""
    return x.abs().pow(2).mean().sqrt()


class System(Protocol):
    """dz/dt = slope(t, z).

    Attributes:
        active: positions of the parts that the slope depends on.
    """

    active: tuple[int, ...]

    def split(self, z: Tensor) -> Parts:
        """The parts of a state."""
        ...

    def join(self, parts: Parts) -> Tensor:
        """The state of parts."""
        ...

    def slope(self, t: Tensor, active: Parts, tensors: Sequence[Tensor]) -> Parts:
        """The derivative of each part; t is ()."""
        ...

    def norm(self, parts: Parts) -> Tensor:
        """Size of an error relative to the tolerance, ()."""
        ...


class Plain:
    """The states (B, D...) of the field itself.

    Args:
        f: the field.
        norm: of an error.
    """

    active: tuple[int, ...] = (0,)

    def __init__(self, f: Dynamics, norm: Norm) -> None:
        self.f = f
        self.measure = norm

    def split(self, z: Tensor) -> Parts:
        return (z,)

    def join(self, parts: Parts) -> Tensor:
        return parts[0]

    def slope(self, t: Tensor, active: Parts, tensors: Sequence[Tensor]) -> Parts:
        return (self.f(t, active[0]),)

    def norm(self, parts: Parts) -> Tensor:
        return self.measure(parts[0])


class Augmented:
    """The gradient of the time, y, the adjoint, and the gradient of each parameter, flat in one vector.

    dy/dt = f, da/dt = -a^T df/dy, dg/dt = -a^T df/dtheta, and -a^T df/dt for the time: the system of
    `node_runner.adjoints.continuous`, which is that of torchdiffeq's adjoint.

    Args:
        f: the field.
        norm: of an error of y, and of the adjoint.
        shape: (B, D...) of y.
        wanted: positions, among the field's tensors, of the parameters.
        shapes: of the parameters.
        seminorm: whether the parameters' gradients are left out of the norm.
    """

    active: tuple[int, ...] = (1, 2)

    def __init__(
        self, f: Dynamics, norm: Norm, shape: torch.Size, wanted: Sequence[int], shapes: Sequence[torch.Size], *,
        seminorm: bool,
    ) -> None:  # fmt: skip
        self.f = f
        self.measure = norm
        self.shape, self.wanted, self.shapes = shape, tuple(wanted), tuple(shapes)
        self.sizes = (1, shape.numel(), shape.numel(), *(s.numel() for s in shapes))
        self.seminorm = seminorm

    def split(self, z: Tensor) -> Parts:
        time, y, adjoint, *gradients = z.split(self.sizes)
        return (time, y.view(self.shape), adjoint.view(self.shape), *gradients)

    def join(self, parts: Parts) -> Tensor:
        return torch.cat([part.reshape(-1) for part in parts])

    def slope(self, t: Tensor, active: Parts, tensors: Sequence[Tensor]) -> Parts:
        """The slopes of the gradient by time, the state, its adjoint, and the gradients of the parameters."""
        y, adjoint = active
        with torch.enable_grad():
            y = y.detach().requires_grad_(True)
            t = t.detach().requires_grad_(True)
            dy = self.f(t, y)
            inputs = (t, y, *(tensors[i] for i in self.wanted))
            found: Sequence[Tensor | None] = [None] * len(inputs)
            if dy.requires_grad:
                found = torch.autograd.grad(dy, inputs, -adjoint, allow_unused=True)
        time, pulled, *rest = (
            torch.zeros_like(x) if gradient is None else gradient for gradient, x in zip(found, inputs, strict=True)
        )
        return (time.reshape(1), dy.detach(), pulled, *(gradient.reshape(-1) for gradient in rest))

    def norm(self, parts: Parts) -> Tensor:
        """Largest of the norms of the parts."""
        time, y, adjoint, *gradients = parts
        norms = [time.abs().squeeze(), self.measure(y), self.measure(adjoint)]
        if not self.seminorm:
            norms += [rms(part) for part in gradients]
        largest = norms[0]
        for norm in norms[1:]:
            largest = torch.where(norm > largest, norm, largest)
        return largest
