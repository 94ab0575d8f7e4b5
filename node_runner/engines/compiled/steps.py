"""The arithmetic of one step, as pure functions of tensors, which are compiled as they stand or called as they are.

Source: torchdiffeq's `rk_common.py` and `misc.py`, whose semantics these are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from node_runner.engines.compiled.systems import Parts, System
from node_runner.types import Tableau


class Result(NamedTuple):
    """outputs: that a gradient flows through. report: numbers for the host, (n,), or nothing."""

    outputs: list[Tensor]
    report: list[Tensor]


Compute = Callable[[Sequence[Tensor], Sequence[Tensor]], Result]
"""(states, of which the first holds scalars and takes no gradient; tensors of the field) -> result."""


def slope(system: System) -> Compute:
    """(t (1,), z) -> dz/dt."""

    def compute(states: Sequence[Tensor], tensors: Sequence[Tensor]) -> Result:
        clock, z = states
        return Result([system.join(_slope_at(system, clock[0], system.split(z), tensors))], [])

    return compute


def begin(system: System, order: int) -> Compute:
    """(t, direction, rtol, atol (4,), z) -> dz/dt, report: the size of the first step.

    Source: Hairer, Norsett and Wanner, Solving ODEs I, 2nd ed., section II.4, as in torchdiffeq's
    `_select_initial_step`, comparisons with NaN included.
    """

    def compute(states: Sequence[Tensor], tensors: Sequence[Tensor]) -> Result:
        """Evaluate the slope, and a second one from which the size follows."""
        clock, z = states
        t, direction, rtol, atol = clock.unbind(0)
        y = system.split(z)
        f0 = _slope_at(system, t, y, tensors)
        with torch.no_grad():
            scale = [atol + part.abs() * rtol for part in y]
            d0, d1 = (system.norm(_ratio(x, scale)).abs() for x in (y, f0))
            small = torch.full_like(d0, 1e-6)
            h0 = torch.where((d0 < 1e-5) | (d1 < 1e-5), small, 0.01 * d0 / d1).abs()
            y1 = tuple(part + (direction * h0) * f for part, f in zip(y, f0, strict=True))
            f1 = _slope_at(system, t + direction * h0, y1, tensors)
            d2 = (system.norm(_ratio([b - a for a, b in zip(f0, f1, strict=True)], scale)) / h0).abs()
            largest = torch.where(d2 > d1, d2, d1)
            h1 = torch.where(
                (d1 <= 1e-15) & (d2 <= 1e-15), torch.maximum(small, h0 * 1e-3), (0.01 / largest) ** (1 / order)
            ).abs()
            step = torch.minimum(100 * h0, h1)
        return Result([system.join(f0)], [step.reshape(1)])

    return compute


def adaptive_step(system: System, tableau: Tableau) -> Compute:
    """(clock (5,), z, k0) -> z1, the last slope, z at the middle; report: error ratio, 0 or NaN if z1 is not finite.

    clock: t, h, time of the stages at the step's end, rtol, atol; h is negative backward in time. k0 is the slope
    at z, and the last slope is the next step's k0 even where the method does not end in its solution.
    """

    def compute(states: Sequence[Tensor], tensors: Sequence[Tensor]) -> Result:
        """Evaluate the later stages, and sum them with the weights of the tableau."""
        clock, z, k0 = states
        t, h, end, rtol, atol = clock.unbind(0)
        y = system.split(z)
        ks = [system.split(k0)]
        _later_stages(system, tableau, t, h, end, y, ks, tensors)
        y1 = tuple(part + h * change for part, change in zip(y, _sums(tableau.b, ks), strict=True))
        middle = tuple(part + h * change for part, change in zip(y, _sums(tableau.middle, ks), strict=True))
        z1 = system.join(y1)
        with torch.no_grad():
            error = [h * change for change in _sums(tableau.error, ks)]
            scale = [atol + rtol * torch.maximum(a.abs(), b.abs()) for a, b in zip(y, y1, strict=True)]
            ratio = system.norm(_ratio(error, scale)).abs()
            report = torch.stack((ratio, (z1.detach() * 0).sum()))
        return Result([z1, system.join(ks[-1]), system.join(middle)], [report])

    return compute


def fixed_step(system: System, tableau: Tableau, with_slopes: bool) -> Compute:
    """(clock (5,), z) -> z1, and for cubic interpolation the slopes at z and at z1.

    clock: time of the first stage, t, h, time of the stages at the step's end, t + h.
    """

    def compute(states: Sequence[Tensor], tensors: Sequence[Tensor]) -> Result:
        clock, z = states
        start, t, h, end, after = clock.unbind(0)
        y = system.split(z)
        ks = [_slope_at(system, start, y, tensors)]
        _later_stages(system, tableau, t, h, end, y, ks, tensors)
        y1 = tuple(part + h * change for part, change in zip(y, _sums(tableau.b, ks), strict=True))
        slopes = [ks[0], _slope_at(system, after, y1, tensors)] if with_slopes else []
        return Result([system.join(parts) for parts in (y1, *slopes)], [])

    return compute


def _later_stages(
    system: System, tableau: Tableau, t: Tensor, h: Tensor, end: Tensor, y: Parts, ks: list[Parts],
    tensors: Sequence[Tensor],
) -> None:  # fmt: skip
    """Append the slopes of all stages but the first."""
    for node, row in zip(tableau.c[1:], tableau.a[1:], strict=True):
        at = tuple(y[i] + h * _sum(row, ks, i) for i in system.active)
        ks.append(system.slope(end if node == 1.0 else t + node * h, at, tensors))


def _slope_at(system: System, t: Tensor, y: Parts, tensors: Sequence[Tensor]) -> Parts:
    return system.slope(t, tuple(y[i] for i in system.active), tensors)


def _sums(weights: Sequence[float], ks: list[Parts]) -> list[Tensor]:
    return [_sum(weights, ks, i) for i in range(len(ks[0]))]


def _sum(weights: Sequence[float], ks: list[Parts], part: int) -> Tensor:
    """The weighted sum of one part of the slopes."""
    total: Tensor | None = None
    for weight, k in zip(weights, ks, strict=False):
        if weight != 0:
            total = k[part] * weight if total is None else total + k[part] * weight
    return torch.zeros_like(ks[0][part]) if total is None else total


def _ratio(values: Sequence[Tensor], scale: Sequence[Tensor]) -> Parts:
    return tuple(value / by for value, by in zip(values, scale, strict=True))
