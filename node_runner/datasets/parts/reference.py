"""Solutions of known equations to nearly the accuracy of float64, for data that no closed form gives."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.integrate import solve_ivp

from node_runner.datasets.parts.streams import Array
from node_runner.errors import ConfigError


Field = Callable[[Any, Array], Array]

# DOP853 holds the RMS over the whole batch below the tolerance, so one component can miss it by sqrt(B * D).
# With these two, no component's error per step exceeds 1e-12 of its size, even where a population is
# nearly extinct: ATOL, as a share of the largest initial state, only keeps the tolerance from being zero.
RTOL = 3e-14
ATOL = 1e-8 * RTOL
BATCH = 500

STIFF_RTOL, STIFF_ATOL = 1e-10, 1e-12
"""Of LSODA, each trajectory by itself."""
BEYOND = 1e6
"""Times the largest number of an initial state, or 1: a state that gets there is taken to grow beyond all bounds."""

MOST = 1_000_000
"""Evaluations of the field in one solve, of which the data sets take thousands. Where parameters are extreme
a solver may go on for ever."""


def solve(field: Field, ts: Array, y0: Array) -> Array:
    """Solve dy/dt = field(t, y), y(ts[0]) = y0 with DOP853 and its 7th-order dense output, in float64.

    At this tolerance the steps are so short that the dense output is as accurate as they are, without
    a limit on the step: below 1e-11 on the systems of this package, against closed forms and invariants.

    Args:
        field: (t, y (B, D)) -> (B, D).
        ts: (T,) increasing.
        y0: (B, D).

    Returns:
        (T, B, D), NaN at the times that the solution does not reach because it grew beyond all bounds.

    Raises:
        ConfigError: it takes more than `MOST` evaluations.

    Source: Hairer, Nørsett, Wanner, Solving ODEs I, 2nd ed., sec. II.10, as in scipy.integrate.solve_ivp.
    """
    ys = np.full((len(ts), *y0.shape), np.nan)
    if not np.isfinite(y0).all():
        return ys
    for first in range(0, len(y0), BATCH):
        batch = y0[first : first + BATCH]
        counted = _counted(field)
        solution = solve_ivp(
            lambda t, y, shape=batch.shape, counted=counted: counted(t, y.reshape(shape)).reshape(-1),
            (ts[0], ts[-1]),
            batch.reshape(-1),
            method="DOP853",
            t_eval=ts,
            rtol=RTOL,
            atol=ATOL * (np.abs(batch).max() or 1.0),
        )
        if not len(solution.t):  # not even the first of the times
            continue
        ys[: len(solution.t), first : first + BATCH] = solution.y.T.reshape(-1, *batch.shape)
    return ys


def solve_stiff(field: Field, ts: Array, y0: Array) -> Array:
    """As `solve`, for fields that may be stiff: LSODA, which is implicit where it has to be.

    Each trajectory by itself, with a relative error of 1e-10 a step, and an absolute one of 1e-12 for states of size
    one or less.

    Args:
        field: (t, y (D,)) -> (D,).
        ts: (T,) increasing.
        y0: (B, D).

    Returns:
        (T, B, D), NaN at the times that the solution does not reach because it grew beyond all bounds.

    Raises:
        ConfigError: it takes more than `MOST` evaluations.

    Source: Petzold, Automatic selection of methods for solving stiff and nonstiff systems, SIAM J. Sci. Stat. Comput.
    4 (1983), as in scipy.integrate.solve_ivp.
    """
    ys = np.full((len(ts), *y0.shape), np.nan)
    if not np.isfinite(y0).all():
        return ys
    for row, start in enumerate(y0):
        ys[0, row] = start
        bound, counted = BEYOND * max(1.0, np.abs(start).max()), _counted(field)

        def bounded(t: float, y: Array, bound: float = bound, counted: Field = counted) -> Array:
            if not np.abs(y).max() < bound:
                raise _Beyond(t)  # in front of a pole LSODA would go on for ever
            return counted(t, y)

        ahead = ts
        while len(ahead) > 1:
            try:
                span = (ahead[0], ahead[-1])
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", "lsoda")  # what it could not reach is told by the times it did
                    solution = solve_ivp(bounded, span, start, "LSODA", ahead, rtol=STIFF_RTOL, atol=STIFF_ATOL)
                ys[: len(solution.t), row] = solution.y.T
                break
            except _Beyond as reached:
                ahead = ahead[:-1][ahead[:-1] < reached.t]
    return ys


def _counted(field: Field) -> Field:
    """The field, for `MOST` evaluations."""
    count = itertools.count(1)

    def counted(t: Any, y: Array) -> Array:
        if next(count) > MOST:
            raise ConfigError(
                f"{MOST:,} evaluations take the solution of the data set's equation to t={float(t):.4g} only, and data "
                "are asked for until later; use milder parameters, or a lower dataset.horizon"
            )
        return field(t, y)

    return counted


class _Beyond(Exception):
    """The state is beyond all bounds at a time t."""

    def __init__(self, t: float) -> None:
        super().__init__(t)
        self.t = t
