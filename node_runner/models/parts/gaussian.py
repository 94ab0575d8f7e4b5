"""Likelihood and divergence of independent normal distributions, and how the latter counts in training."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def gaussian_nll(error: Tensor, log_std: Tensor, where: Tensor) -> Tensor:
    """Sum () of -log N(error; 0, std^2) in nats over where (..., D); error (..., D), log_std (D,) or (..., D)."""
    terms = 0.5 * (error / log_std.exp()).square() + log_std + 0.5 * math.log(2 * math.pi)
    return torch.where(where, terms, 0).sum()


def gaussian_divergence(
    mean: Tensor, log_std: Tensor, prior_mean: Tensor | None = None, prior_log_std: Tensor | None = None
) -> Tensor:
    """KL(N(mean, std^2) || N(prior_mean, prior_std^2)) (B,) from (B, Z) and (Z,). Without a prior: N(0, 1)."""
    distance = mean if prior_mean is None else mean - prior_mean
    ratio = 2 * log_std
    if prior_log_std is not None:
        distance = distance / prior_log_std.exp()
        ratio = 2 * (log_std - prior_log_std)
    return 0.5 * (distance.square() + ratio.exp() - 1 - ratio).sum(dim=1)


def divergence_weight(weight: float, share: float, progress: float) -> float:
    """What a divergence counts when `progress` of the training is done: `weight` after a `share` of it, less before."""
    return weight * (min(1.0, progress / share) if share else 1.0)
