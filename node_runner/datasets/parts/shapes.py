"""The shapes of the densities in the plane: how to draw from each, and its logarithm where that is known.

Formulas and sizes are those of FFJORD's toy data (Grathwohl et al., 2019, lib/toy_data.py), except that
places along a curve are drawn at random here where some of them are evenly spaced there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


Generator = np.random.Generator
Sample = tuple[NDArray[np.float64], NDArray[np.int64]]
"""x (n, 2), and the class (n,) that each comes from."""

RADII = np.array([3.0, 2.25, 1.5, 0.75])
"""Of the rings."""


@dataclass(frozen=True)
class Shape:
    """A density in the plane.

    Attributes:
        sample: (generator, n, noise) -> n draws and their classes.
        num_classes: pieces that it consists of.
        noise: its usual spread.
        log_prob: (x (N, 2), noise) -> (N,), where it is known.
    """

    sample: Callable[[Generator, int, float], Sample]
    num_classes: int
    noise: float
    log_prob: Callable[[Tensor, float], Tensor | None] | None = None


def two_moons(generator: Generator, n: int, noise: float) -> Sample:
    """An upper half circle about (-1, -0.2) and a lower one about (1, 0.8), radius 2.

    As scikit-learn's make_moons, times 2, plus (-1, -0.2).
    """
    y = generator.integers(2, size=n)
    angle = generator.uniform(0, np.pi, n)
    upper = np.stack((np.cos(angle), np.sin(angle)), axis=1)
    unit = np.where(y[:, None] == 0, upper, (1.0, 0.5) - upper)
    return 2 * unit + (-1.0, -0.2) + noise * generator.standard_normal((n, 2)), y


def eight_gaussians(generator: Generator, n: int, noise: float) -> Sample:
    """Gaussians about eight points of a circle of radius 2 sqrt(2)."""
    y = generator.integers(8, size=n)
    return _eight_centres()[y] + noise * generator.standard_normal((n, 2)), y


def pinwheel(generator: Generator, n: int, noise: float) -> Sample:
    """Five arms: Gaussians that are long in the radius, each turned by 0.25 exp(radius / 2)."""
    y = generator.integers(5, size=n)
    along = 1 + 0.3 * generator.standard_normal(n)
    across = noise / 2 * generator.standard_normal(n)
    turn = 2 * np.pi / 5 * y + 0.25 * np.exp(along)
    cos, sin = np.cos(turn), np.sin(turn)
    return 2 * np.stack((along * cos + across * sin, across * cos - along * sin), axis=1), y


def checkerboard(generator: Generator, n: int, noise: float) -> Sample:
    """Uniform on the eight squares of side 2 in [-4, 4]^2 whose column and row are both even or both odd."""
    y = generator.integers(8, size=n)
    x = _eight_corners()[y] + generator.uniform(0, 2, (n, 2))
    return x + noise * generator.standard_normal((n, 2)), y


def rings(generator: Generator, n: int, noise: float) -> Sample:
    """Circles of the radii 3, 2.25, 1.5 and 0.75, equally likely."""
    y = generator.integers(4, size=n)
    angle = generator.uniform(0, 2 * np.pi, n)
    circle = np.stack((np.cos(angle), np.sin(angle)), axis=1)
    return RADII[y, None] * circle + noise * generator.standard_normal((n, 2)), y


def spirals(generator: Generator, n: int, noise: float) -> Sample:
    """Two spirals of one and a half turns, denser outwards, each the other turned by half a turn."""
    y = generator.integers(2, size=n)
    angle = 3 * np.pi * np.sqrt(generator.uniform(size=n))
    arm = np.stack((-np.cos(angle), np.sin(angle)), axis=1) * angle[:, None] + generator.uniform(0, 0.5, (n, 2))
    x = np.where(y[:, None] == 0, arm, -arm) / 3
    return x + noise * generator.standard_normal((n, 2)), y


def eight_gaussians_log_prob(x: Tensor, noise: float) -> Tensor | None:
    """Of a mixture of eight equal Gaussians."""
    if noise == 0:
        return None
    squared = torch.cdist(x, x.new_tensor(_eight_centres())).square()  # (N, 8)
    return torch.logsumexp(-squared / (2 * noise**2), dim=1) - math.log(8 * 2 * math.pi * noise**2)


def checkerboard_log_prob(x: Tensor, noise: float) -> Tensor:
    """Of eight equal squares, each blurred by a Gaussian: a product of differences of its distribution function."""
    corners = x.new_tensor(_eight_corners())  # (8, 2)
    low = x[:, None] - corners
    high = low - 2
    if noise == 0:
        inside = ((low >= 0) & (high < 0)).all(dim=2).any(dim=1)
        return torch.where(inside, -math.log(32), -math.inf).to(x)
    # A difference of two numbers near 1 would lose its digits: on the far side take it in the other tail.
    mirrored = high > 0
    upper = torch.where(mirrored, -high, low) / noise
    lower = torch.where(mirrored, -low, high) / noise
    share = (_normal_cdf(upper) - _normal_cdf(lower)).prod(dim=2)  # (N, 8)
    return share.sum(dim=1).log() - math.log(32)


def rings_log_prob(x: Tensor, noise: float) -> Tensor | None:
    """Of circles blurred by a Gaussian: each has the radial profile of a Rice distribution.

    p(x) = exp(-(r^2 + R^2) / 2 s^2) I0(r R / s^2) / (2 pi s^2) for a circle of radius R, r = |x|.
    """
    if noise == 0:
        return None
    radii = x.new_tensor(RADII)
    r = x.norm(dim=1, keepdim=True)
    # i0e(z) = exp(-z) I0(z), which does not overflow, completes the square to (r - R)^2.
    log_ring = -((r - radii) ** 2) / (2 * noise**2) + torch.special.i0e(r * radii / noise**2).log()
    return torch.logsumexp(log_ring, dim=1) - math.log(4 * 2 * math.pi * noise**2)


def two_moons_log_prob(x: Tensor, noise: float) -> Tensor | None:
    """Of two half circles blurred by a Gaussian: the mean of the Gaussian over the angle."""
    if noise == 0:
        return None
    # Gauss-Legendre over the 2 pi of arc, with several nodes to each width of the Gaussian.
    nodes, weights = np.polynomial.legendre.leggauss(32 + math.ceil(8 * math.pi / noise))
    angle = np.pi / 2 * (nodes + 1)
    upper = np.stack((np.cos(angle), np.sin(angle)), axis=1)
    arcs = [2 * upper + (-1.0, -0.2), 2 * ((1.0, 0.5) - upper) + (-1.0, -0.2)]
    log_weights = x.new_tensor(weights / 4).log()  # the weights of one arc sum to 2, of both to 4
    gaussians = [log_weights - torch.cdist(x, x.new_tensor(arc)).square() / (2 * noise**2) for arc in arcs]
    return torch.logsumexp(torch.cat(gaussians, dim=1), dim=1) - math.log(2 * math.pi * noise**2)


def entropy(shape: Shape, noise: float) -> float | None:
    """Differential entropy -int p log p in nats, which no model's expected negative log-likelihood is below.

    The checkerboard without noise is uniform on an area of 32. Otherwise by the trapezoidal rule on a grid of
    half the noise, whose error is far below float64's for what a Gaussian of that width has blurred. None where
    the density is not known, and for noise below 0.05, which would need too fine a grid.
    """
    if shape.log_prob is None:
        return None
    if shape.sample is checkerboard and noise == 0:
        return math.log(32)
    if noise < 0.05:
        return None
    reach, spacing = 4 + 9 * noise, noise / 2
    axis = torch.arange(-reach, reach + spacing, spacing, dtype=torch.float64)
    total = 0.0
    for rows in axis.split(16):
        log_prob = shape.log_prob(torch.cartesian_prod(rows, axis), noise)
        if log_prob is None:
            return None
        total -= float(torch.special.xlogy(log_prob.exp(), log_prob.exp()).sum())
    return total * spacing**2


def _normal_cdf(z: Tensor) -> Tensor:
    # torch.special.ndtr is (1 + erf) / 2, which is 0 from z = -8.3 on; this one is right to z = -38.
    return torch.erfc(-z * math.sqrt(0.5)) / 2


def _eight_centres() -> NDArray[np.float64]:
    angle = np.arange(8) * np.pi / 4
    return 2 * math.sqrt(2) * np.stack((np.cos(angle), np.sin(angle)), axis=1)


def _eight_corners() -> NDArray[np.float64]:
    cells = [(column, row) for column in range(-2, 2) for row in range(-2, 2) if (column + row) % 2 == 0]
    return 2.0 * np.array(cells)


SHAPES = {
    "two_moons": Shape(two_moons, 2, 0.2, two_moons_log_prob),
    "eight_gaussians": Shape(eight_gaussians, 8, 0.5 / math.sqrt(2), eight_gaussians_log_prob),
    "pinwheel": Shape(pinwheel, 5, 0.2),
    "checkerboard": Shape(checkerboard, 8, 0.0, checkerboard_log_prob),
    "rings": Shape(rings, 4, 0.08, rings_log_prob),
    "spirals": Shape(spirals, 2, 0.1),
}
