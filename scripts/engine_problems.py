"""The problems on which engines are compared: a trajectory and many, small and large states, flows, an image block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from node_runner.fields.conv import Conv
from node_runner.fields.mlp import MLP
from node_runner.models.parts.dynamics import Hutchinson, Widened, divergence_exact
from node_runner.settings import Activation
from node_runner.solvers import SOLVERS
from node_runner.types import Method


@dataclass(frozen=True)
class Problem:
    """A solve whose gradient is wanted: mean squared distance of all outputs from `target` (T, B, D...)."""

    about: str
    field: nn.Module
    y0: Tensor
    ts: Tensor
    rtol: float
    atol: float
    method: Method
    target: Tensor

    def loss(self, ys: Tensor) -> Tensor:
        """() to be differentiated."""
        return F.mse_loss(ys, self.target)

    def double(self) -> Problem:
        """The same in float64, in place."""
        tensors = (self.y0, self.ts, self.target)
        y0, ts, target = (tensor.double() for tensor in tensors)
        field = self.field.double()
        for integrand in getattr(field, "integrands", ()):
            if isinstance(integrand, Hutchinson):
                integrand.noise = integrand.noise.double()
        return Problem(self.about, field, y0, ts, self.rtol, self.atol, self.method, target)


def problem(about: str, field: nn.Module, y0: Tensor, ts: Tensor, rtol: float, atol: float, solver: str) -> Problem:
    """With a random target."""
    target = 0.5 * torch.randn(len(ts), *y0.shape, generator=torch.Generator().manual_seed(7))
    return Problem(about, field, y0, ts, rtol, atol, SOLVERS.get(solver)(solver), target)


def spiral_field(width: int, depth: int) -> MLP:
    """A tanh network that was fitted to torchdiffeq's cubic spiral, dy/dt = A y^3, in 3000 steps."""
    torch.manual_seed(0)
    field = MLP((2,), width=width, depth=depth, activation=Activation.tanh)
    matrix = torch.tensor([[-0.1, 2.0], [-2.0, -0.1]])
    optimizer = torch.optim.Adam(field.parameters(), lr=5e-3)
    time = torch.zeros(())
    for _ in range(3000):
        y = 1.2 * torch.randn(512, 2)
        loss = (field(time, y) - (y**3) @ matrix).clamp(-20, 20).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    optimizer.zero_grad()  # what is left of the fit would be added to the first gradient
    return field


def spiral(batch: int, width: int, depth: int, rtol: float, atol: float, solver: str, times: int) -> Problem:
    """Trajectories that start about (2, 0), to t = 7."""
    y0 = torch.tensor([[2.0, 0.0]])
    if batch > 1:
        y0 = y0 + 0.3 * torch.randn(batch, 2, generator=torch.Generator().manual_seed(3))
    hidden = "-".join([str(width)] * depth)
    about = f"cubic spiral, {batch} trajector{'ies' if batch > 1 else 'y'}, 2-{hidden}-2 tanh, {times} outputs to t = 7"
    return problem(about, spiral_field(width, depth), y0, torch.linspace(0, 7, times), rtol, atol, solver)


def about_spread(radii: Tensor) -> str:
    """In words, what `spread` makes."""
    return f"cubic spiral, {len(radii)} trajectories from radii {radii.min():.2g} to {radii.max():.2g}, 2-64-64-2 tanh"


def spread(radii: Tensor) -> Problem:
    """Trajectories from (r, 0): that of the cubic spiral turns with 2 r^2, so small radii need few steps."""
    y0 = torch.stack([radii, torch.zeros_like(radii)], dim=1)
    return problem(about_spread(radii), spiral_field(64, 2), y0, torch.linspace(0, 7, 160), 1e-6, 1e-8, "dopri5")


def vector_block() -> Problem:
    """A state of 64 numbers, as a classifier of images has it."""
    torch.manual_seed(0)
    field = MLP((64,), width=64, depth=1, activation=Activation.tanh, time_dependent=True)
    sharpen(field, 3.0)
    y0 = torch.randn(128, 64, generator=torch.Generator().manual_seed(3))
    about = "128 states of 64 numbers, 65-64-64 tanh of state and time, [0, 1]"
    return problem(about, field, y0, torch.tensor([0.0, 1.0]), 1e-3, 1e-4, "dopri5")


def image_block() -> Problem:
    """The ODE block of Chen et al. (2018)."""
    torch.manual_seed(0)
    y0 = torch.randn(128, 64, 6, 6, generator=torch.Generator().manual_seed(3))
    about = "128 states of 64 x 6 x 6, the ODE-Net's GroupNorm and 3 x 3 convolutions, [0, 1]"
    return problem(about, Conv((64, 6, 6)), y0, torch.tensor([0.0, 1.0]), 1e-3, 1e-4, "dopri5")


def flow(exact: bool) -> Problem:
    """A continuous normalising flow of the plane."""
    torch.manual_seed(0)
    net = MLP((2,), width=64, depth=3, activation=Activation.tanh, time_dependent=True)
    sharpen(net, 2.0)
    generator = torch.Generator().manual_seed(3)
    noise = torch.randint(0, 2, (512, 2), generator=generator).float() * 2 - 1
    field = Widened(net, (2,), [divergence_exact if exact else Hutchinson(noise)])
    y0 = field.begin(torch.randn(512, 2, generator=generator))
    kind = "exact" if exact else "Hutchinson's"
    about = f"flow of 512 points in the plane, 3-64-64-64-2 tanh, {kind} divergence, [0, 1]"
    return problem(about, field, y0, torch.tensor([0.0, 1.0]), 1e-5, 1e-5, "dopri5")


def sharpen(field: nn.Module, factor: float) -> None:
    """Larger weights, so that the solver has something to do."""
    with torch.no_grad():
        for parameter in field.parameters():
            if parameter.ndim == 2:
                parameter.mul_(factor)


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "one-spiral": partial(spiral, 1, 32, 1, 1e-3, 1e-4, "dopri5", 160),
    "one-spiral-tight": partial(spiral, 1, 32, 1, 1e-6, 1e-8, "dopri5", 160),
    "spirals-small": partial(spiral, 64, 32, 1, 1e-3, 1e-4, "dopri5", 160),
    "spirals": partial(spiral, 64, 64, 2, 1e-3, 1e-4, "dopri5", 160),
    "spirals-tight": partial(spiral, 64, 64, 2, 1e-6, 1e-8, "dopri5", 160),
    "vector-block": vector_block,
    "image-block": image_block,
    "flow-hutchinson": partial(flow, exact=False),
    "flow-exact": partial(flow, exact=True),
    "one-spiral-rk4": partial(spiral, 1, 32, 1, 1e-3, 1e-4, "rk4", 101),
    "spirals-rk4": partial(spiral, 64, 64, 2, 1e-3, 1e-4, "rk4", 101),
}
