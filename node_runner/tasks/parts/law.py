"""What the exact law of a Gaussian process says of its observations, and how far draws are from it."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from node_runner.views import Law


class Normal(NamedTuple):
    """Independent normal laws: mean and standard deviation, of one shape."""

    mean: Tensor
    std: Tensor


def marginal(law: Law, ts: Tensor) -> Normal:
    """The law (T,) of an observation at each of ts (T,) where nothing has been seen."""
    ts = ts.double()
    return Normal(law.mean(ts), (law.covariance(ts, ts).diagonal() + law.noise**2).sqrt())


def increment(law: Law, ts: Tensor) -> Normal:
    """The law (T - 1,) of the difference between the observations at one of ts (T,) and the next."""
    ts = ts.double()
    k = law.covariance(ts, ts)
    variance = k.diagonal()[1:] + k.diagonal()[:-1] - 2 * k.diagonal(1) + 2 * law.noise**2
    return Normal(law.mean(ts).diff(), variance.sqrt())


def given(law: Law, ts: Tensor, values: Tensor, seen: Tensor) -> Normal:
    """The law (T, B, D) of an observation at each of ts (T,), given values (T, B, D) at the places seen (T, B, D).

    Source: Rasmussen, Williams, Gaussian Processes for Machine Learning (2006), equations 2.25 and 2.26.
    """
    ts = ts.double()
    factor, rest, where = _seen_part(law, ts, values, seen)
    cross = law.covariance(ts, ts) * where.unsqueeze(1)  # (B * D, T, T)
    mean = law.mean(ts) + (cross @ torch.cholesky_solve(rest.unsqueeze(2), factor)).squeeze(2)
    explained = torch.linalg.solve_triangular(factor, cross.mT, upper=False).square().sum(dim=1)
    std = (law.covariance(ts, ts).diagonal() - explained).clamp(min=0).add(law.noise**2).sqrt()
    return Normal(*(x.T.reshape(values.shape) for x in (mean, std)))


def log_likelihood(law: Law, ts: Tensor, values: Tensor, seen: Tensor) -> Tensor:
    """Log-density of all values that are seen, (B,) in nats; arguments (T,), (T, B, D), (T, B, D)."""
    factor, rest, where = _seen_part(law, ts.double(), values, seen)
    scaled = torch.linalg.solve_triangular(factor, rest.unsqueeze(2), upper=False).squeeze(2)
    log_det = factor.diagonal(dim1=1, dim2=2).log().sum(dim=1)
    found = -0.5 * scaled.square().sum(dim=1) - log_det - 0.5 * math.log(2 * math.pi) * where.sum(dim=1)
    return found.reshape(values.shape[1:]).sum(dim=1)


def _seen_part(law: Law, ts: Tensor, values: Tensor, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cholesky factor (B * D, T, T) of the covariance of what is seen, its distance (B * D, T) from the mean, and
    where it is (B * D, T). What is not seen has unit variance, no correlation, and no distance.
    """
    where = seen.flatten(1).T.to(ts)
    both = where.unsqueeze(2) * where.unsqueeze(1)
    noise = torch.diag_embed(where * law.noise**2 + (1 - where))
    rest = (values.double().flatten(1).T - law.mean(ts)) * where
    return torch.linalg.cholesky(law.covariance(ts, ts) * both + noise), rest, where


def wasserstein(draws: Tensor, law: Normal) -> Tensor:
    """Wasserstein-1 distance of draws (S, ...) from normal laws (...), by their quantiles at (i - 1/2) / S.

    S draws of the law itself are some 1.25 / sqrt(S) deviations away from it.
    """
    levels = (torch.arange(len(draws), dtype=torch.float64, device=draws.device) + 0.5) / len(draws)
    quantiles = torch.special.ndtri(levels).reshape(-1, *[1] * law.mean.ndim) * law.std + law.mean
    return (draws.double().sort(dim=0).values - quantiles).abs().mean(dim=0)
