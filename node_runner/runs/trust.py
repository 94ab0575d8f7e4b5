"""Whether what was learned is an equation, or the steps of one solver: its own solve and an accurate one, compared.

A field that was trained through coarse steps can be right for these steps alone: Queiruga, Erichson, Taylor, Mahoney,
Continuous-in-Depth Neural Networks, 2020; Ott, Katiyar, Hennig, Tiemann, ResNet After All, 2021.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


PART = "val_tight"
"""What metrics of the validation part are called when it is solved accurately."""

APART = {"accuracy": 0.02, "bits_per_dim": 0.02, "nll": 0.02}
"""Differences of a metric that matter; the first that a run has is looked at."""

SHARE = 0.2
"""The same for errors, as a share of them."""


class Apart(NamedTuple):
    """A metric of the validation part that depends on the solver. own, accurate: its values."""

    metric: str
    own: float
    accurate: float


def apart(metrics: Mapping[str, float | None]) -> Apart | None:
    """The metric that tells an accurate solve from the run's own, or None where the two agree or are not known."""
    for name in (*APART, "relative_rmse", "loss"):
        own, accurate = metrics.get(f"val/{name}"), metrics.get(f"{PART}/{name}")
        if own is not None and accurate is not None:
            return Apart(name, own, accurate) if abs(accurate - own) > APART.get(name, SHARE * abs(own)) else None
    return None


def advice(metrics: Mapping[str, float | None], *, adaptive: bool) -> str | None:
    """What to do about a model that is another when it is solved accurately, or None.

    Args:
        metrics: of the run, with those of the part `val_tight`.
        adaptive: whether its solver chooses its steps.
    """
    found = apart(metrics)
    if found is None:
        return None
    remedy = "a smaller tolerance.rtol" if adaptive else "a smaller solver.step_size, or a solver of higher order,"
    return (
        f"val/{found.metric} is {found.own:.4g}, and {found.accurate:.4g} solved accurately: what was learned are the "
        f"steps of this solver as much as an equation; {remedy} in training gives a field that holds for every solver"
    )
