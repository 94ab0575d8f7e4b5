"""From grey levels to the space of a flow, by maps that are fitted to the training images."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from node_runner.errors import ConfigError
from node_runner.models.parts.scaling import Logit
from node_runner.settings import Pixels
from node_runner.views import DataSpec


LEAST_VARIANCE = 1e-3
"""Of a principal component that is whitened, so that pixels which are copies of one another are no division by zero."""


class Gaussianised(nn.Module):
    """z = Phi^-1(F(x)), for dequantised pixels x in [0, levels] and F the distribution of each pixel in the data.

    Uniform noise within the levels makes F continuous and piecewise linear, so z is standard normal as far as the
    training images are those of the data. A pixel that is always black is noise of the base from the beginning, and
    independent normal z have the pixels' mean entropy: 1.69 bits/dim on MNIST, where those of a logit have 2.6.

    Source: the marginal step of Chen, Gopinath, Gaussianization (2000).

    Args:
        frequencies: (D, levels) share of each level in each pixel.
        unseen: share of every pixel that is spread evenly over all levels, so that none is impossible.
    """

    probability: Tensor
    below: Tensor
    above: Tensor

    def __init__(self, frequencies: Tensor, *, unseen: float = 1e-3) -> None:
        super().__init__()
        self.levels = frequencies.shape[1]
        probability = (1 - unseen) * frequencies.double() + unseen / self.levels
        nothing = probability.new_zeros(len(probability), 1)
        self.register_buffer("probability", probability)
        # Both tails of F at the edges of the levels: in float32, 1 - F has no digits left where F is almost 1.
        self.register_buffer("below", torch.cat((nothing, probability.cumsum(1)), dim=1))
        self.register_buffer("above", torch.cat((probability.flip(1).cumsum(1).flip(1), nothing), dim=1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x: (B, D) -> z (B, D) and log |dz/dx| (B,)."""
        level = x.floor().long().clamp(0, self.levels - 1)
        share = (x - level).clamp(0, 1)
        probability = _at(self.probability, level)
        least = torch.finfo(x.dtype).tiny  # keeps the ends of the scale finite
        lower = (_at(self.below, level) + share * probability).clamp(min=least)
        upper = (_at(self.above, level + 1) + (1 - share) * probability).clamp(min=least)
        z = torch.where(lower < upper, torch.special.ndtri(lower), -torch.special.ndtri(upper))
        log_det = probability.log() + 0.5 * (z.square() + math.log(2 * math.pi))
        return z, log_det.sum(dim=1)

    def inverse(self, z: Tensor) -> Tensor:
        """z: (B, D) -> x (B, D), in [0, levels]."""
        lower, upper = torch.special.ndtr(z), torch.special.ndtr(-z)
        from_below = _passed(self.below[:, 1:-1], lower)
        from_above = self.levels - 1 - _passed(self.above[:, 1:-1].flip(1), upper)
        level = torch.where(lower < upper, from_below, from_above)
        probability = _at(self.probability, level)
        share = torch.where(
            lower < upper,
            (lower - _at(self.below, level)) / probability,
            1 - (upper - _at(self.above, level + 1)) / probability,
        )
        return level + share.clamp(0, 1)

    def covariance(self, images: Tensor) -> Tensor:
        """Of z over images (N, D) and the noise within their levels: (D, D), float64, ones on the diagonal.

        Noise is independent from pixel to pixel, so that two pixels' covariance is that of z's means in their levels.
        """
        edges = torch.where(self.below < 0.5, torch.special.ndtri(self.below), -torch.special.ndtri(self.above))
        density = torch.exp(-0.5 * edges.square()) / math.sqrt(2 * math.pi)
        means = (-density.diff(dim=1) / self.probability).float()
        covariance = torch.zeros(len(means), len(means), dtype=torch.float64)
        for some in images.split(5000):
            scores = _at(means, some.long())
            covariance += scores.T @ scores
        return (covariance / len(images)).fill_diagonal_(1.0)


class Whitened(nn.Module):
    """The principal components of Gaussianised pixels, each divided by its deviation.

    Independent normal z are a Gaussian copula: 1.45 bits/dim on MNIST, where the pixels' own entropies are 1.69. All
    components count alike afterwards, the few that make up the digits and the many that are noise.

    Args:
        pixels: Gaussianises each pixel.
        images: (N, D) grey levels of the training part.
    """

    axes: Tensor
    std: Tensor

    def __init__(self, pixels: Gaussianised, images: Tensor) -> None:
        super().__init__()
        self.pixels = pixels
        variance, axes = torch.linalg.eigh(pixels.covariance(images))
        self.register_buffer("axes", axes.flip(1))
        self.register_buffer("std", variance.flip(0).clamp(min=LEAST_VARIANCE).sqrt())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x: (B, D) -> z (B, D), the largest component first, and log |dz/dx| (B,)."""
        z, log_det = self.pixels(x)
        return z @ self.axes / self.std, log_det - self.std.log().sum()

    def inverse(self, z: Tensor) -> Tensor:
        """z: (B, D) -> x (B, D), in [0, levels]."""
        x: Tensor = self.pixels.inverse((z * self.std) @ self.axes.T)
        return x


def pixel_map(spec: DataSpec, pixels: Pixels) -> Gaussianised | Whitened | Logit:
    """The map of a setting, fitted to the data that a specification describes.

    Raises:
        ConfigError: it is fitted to what the data do not give.
    """
    if pixels is Pixels.logit:
        return Logit(spec.levels, spec.frequencies)
    needed = spec.frequencies if pixels is Pixels.gaussianised else spec.images
    if spec.frequencies is None or needed is None:
        lacking = "the share of each grey level" if spec.frequencies is None else "the training images"
        raise ConfigError(f"model.pixels={pixels.value} is fitted to {lacking}, which dataset={spec.dataset} does "
                          "not tell: use model.pixels=logit")  # fmt: skip
    gaussianised = Gaussianised(spec.frequencies)
    return gaussianised if pixels is Pixels.gaussianised else Whitened(gaussianised, needed)


def _at(table: Tensor, column: Tensor) -> Tensor:
    """Each pixel's entry of a table (D, n) at columns (B, D): (B, D)."""
    return table.gather(1, column.T).T


def _passed(edges: Tensor, value: Tensor) -> Tensor:
    """How many of its pixel's ascending edges (D, n) each value (B, D) has reached: (B, D)."""
    return torch.searchsorted(edges.contiguous(), value.T.contiguous(), right=True).T
