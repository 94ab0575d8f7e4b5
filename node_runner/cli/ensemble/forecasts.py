"""What the members of an ensemble predict, and how well their spread tells how wrong they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.stats import t as student
from torch import Tensor

from node_runner.cli.arrays import Array, numpy
from node_runner.errors import ConfigError
from node_runner.reporting.figures.horizon import beyond
from node_runner.runs.saved import Saved
from node_runner.tasks.series import series_batch
from node_runner.views import Series, Trajectories


MOST = 1_000_000
"""Times that a forecast may go on for."""

LEVELS = (*(round(0.05 * i, 2) for i in range(1, 20)), 0.99)
"""Nominal coverages at which bands are held against the truth."""


@dataclass(frozen=True)
class Forecast:
    """One part of the data as every member predicts it.

    Attributes:
        ts: (T,) times.
        true: (N, T, D) true states; NaN where they are not known, or given to the model.
        members: (M, N, T, D) predictions; NaN at times that are not those of a series, where each has its own.
        horizon: time up to which the members have seen data.
    """

    ts: Array
    true: Array
    members: Array
    horizon: float

    @property
    def mean(self) -> Array:
        """(N, T, D) over the members."""
        mean: Array = self.members.mean(axis=0)
        return mean

    @property
    def std(self) -> Array:
        """(N, T, D) over the members, unbiased variance."""
        std: Array = self.members.std(axis=0, ddof=1)
        return std

    def half_width(self, level: float) -> Array:
        """(N, T, D) half the width of the band that would hold the truth with probability `level`.

        The prediction interval of one more draw from the normal distribution that the members are drawn from,
        t_{M-1} std sqrt(1 + 1/M): its coverage is right for any M if the truth is like one more member.
        """
        count = len(self.members)
        width: Array = student.ppf((1 + level) / 2, count - 1) * math.sqrt(1 + 1 / count) * self.std
        return width

    def beyond(self) -> Forecast | None:
        """The times after the horizon; None where nothing is known of them."""
        later = beyond(self.ts, self.horizon)
        part = replace(self, ts=self.ts[later], true=self.true[:, later], members=self.members[:, :, later])
        return part if np.isfinite(part.true).any() else None


def predict(members: Sequence[Saved], name: str, until: float | None = None) -> Forecast:
    """The part `name` as every member predicts it.

    Args:
        members: of the ensemble, on the same data.
        name: of the part.
        until: go on to this time, at the mean step of the part's times (None: to the last of them); trajectories only.

    Raises:
        SolveFailed: a member's solve could not be finished.
    """
    first = members[0].experiment
    part = first.splits[name]
    if isinstance(part, Series):
        ys = [_series(member, name) for member in members]
        true = torch.where(part.known, part.target, torch.nan)
        forecast = Forecast(numpy(part.ts), numpy(true), np.stack(ys), part.last_seen)
        return forecast if part.ts.dim() == 1 else _together(forecast)
    ts = extended(part.ts, until)
    ys = [_trajectories(member, name, ts) for member in members]
    true = torch.full((len(part), len(ts), part.ys.shape[2]), torch.nan, dtype=torch.float64)
    true[:, 1 : len(part.ts)] = part.ys[:, 1:].double().cpu()
    if part.mask is not None:
        true[:, : len(part.ts)][~part.mask.cpu()] = torch.nan
    return Forecast(numpy(ts), true.numpy(), np.stack(ys), float(first.splits.train.ts[-1]))


def extended(ts: Tensor, until: float | None) -> Tensor:
    """Times (T,) and more of them at their mean step up to `until`.

    Raises:
        ConfigError: they are too many.
    """
    if until is None or until <= float(ts[-1]):
        return ts
    step = float(ts[-1] - ts[0]) / (len(ts) - 1)
    if until - float(ts[-1]) > MOST * step:
        raise ConfigError(f"--until {until:g}: that is more than {MOST:,} times, which are {step:.3g} apart as the "
                          "data's; use less")  # fmt: skip
    more = max(1, round((until - float(ts[-1])) / step))
    return torch.cat((ts, torch.linspace(float(ts[-1]), until, more + 1, dtype=ts.dtype, device=ts.device)[1:]))


def _trajectories(member: Saved, name: str, ts: Tensor) -> Array:
    experiment = member.experiment
    part: Trajectories = experiment.splits[name]
    with torch.no_grad(), experiment.tolerances.evaluation():
        y0 = part.ys[:, 0]
        output = experiment.model(y0, ts - ts[0], ts[:1].expand(len(y0)))
    return numpy(output.value.transpose(0, 1))


def _series(member: Saved, name: str) -> Array:
    experiment = member.experiment
    part: Series = experiment.splits[name]
    batch = series_batch(part, part.rows())
    with torch.no_grad(), experiment.tolerances.evaluation():
        output = experiment.model(batch.ts, batch.values, batch.seen)
    return numpy(output.value.transpose(0, 1))


def _together(forecast: Forecast) -> Forecast:
    """Of series that have times of their own, (N, T): on the grid of all, NaN where nothing is known of a series."""
    ts, places = np.unique(forecast.ts, return_inverse=True)
    series, time = np.nonzero(np.isfinite(forecast.true).any(axis=2))
    place = places.reshape(forecast.ts.shape)[series, time]
    count, _, axes = forecast.true.shape
    true, members = (np.full((*lead, count, len(ts), axes), np.nan) for lead in ((), (len(forecast.members),)))
    true[series, place], members[:, series, place] = forecast.true[series, time], forecast.members[:, series, time]
    return replace(forecast, ts=ts, true=true, members=members)


def score(forecast: Forecast, level: float) -> dict[str, Any]:
    """Errors, spread and calibration over all states that are known, errors in the data's units.

    rmse_mean: of the members' mean; rmse_members: of each; spread: root of the mean variance over the members.
    spread_over_error: sqrt((M + 1) / M) spread / rmse_mean, which is 1 where the truth is like one more member and
    below 1 where the ensemble is too sure (Fortin et al., Why should ensemble spread match the RMSE of the ensemble
    mean?, 2014). coverage: share of the states inside the band of `level`.
    """
    known = np.isfinite(forecast.true)
    error = (forecast.mean - forecast.true)[known]
    members = [(member - forecast.true)[known] for member in forecast.members]
    count = len(members)
    rmse, spread = _rms(error), _rms(forecast.std[known])
    return {
        "rmse_mean": rmse,
        "rmse_members": [_rms(each) for each in members],
        "spread": spread,
        "spread_over_error": math.sqrt((count + 1) / count) * spread / rmse if rmse else math.inf,
        "coverage": coverage(forecast, level),
    }


def coverage(forecast: Forecast, level: float) -> float:
    """Share of the known states inside the band of `level`."""
    known = np.isfinite(forecast.true)
    inside = np.abs(forecast.mean - forecast.true)[known] <= forecast.half_width(level)[known]
    return float(inside.mean())


def over_time(forecast: Forecast) -> dict[str, Array]:
    """t, spread and rmse_mean (T,), each over all trajectories and axes; rmse_mean NaN where nothing is known."""
    known = np.isfinite(forecast.true)
    squares = np.where(known, forecast.mean - forecast.true, 0) ** 2
    counts = known.sum(axis=(0, 2))
    error, spread = np.full((2, len(forecast.ts)), np.nan)
    error[counts > 0] = np.sqrt(squares.sum(axis=(0, 2))[counts > 0] / counts[counts > 0])
    predicted = np.isfinite(forecast.mean)
    some = predicted.any(axis=(0, 2))
    variance = np.where(predicted, forecast.std**2, 0).sum(axis=(0, 2))
    spread[some] = np.sqrt(variance[some] / predicted.sum(axis=(0, 2))[some])
    return {"t": forecast.ts, "spread": spread, "rmse_mean": error}


def _rms(values: Array) -> float:
    return float(np.sqrt(np.mean(values**2)))
