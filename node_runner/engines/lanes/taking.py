"""Whether a field accepts a time for each sample, found out by calling it."""

from __future__ import annotations

import torch
from torch import Tensor

from node_runner.types import Dynamics


@torch.no_grad()
def unfit(f: Dynamics, y: Tensor) -> str | None:
    """Why samples cannot have times of their own with this field, or None.

    Asks for four evaluations: at times (B,), twice with another first sample, and at the first and the last time
    alone. A field that broadcasts times over something else than its samples answers differently.

    Args:
        f: the field.
        y: (B, D...) states, at least two.
    """
    ts = torch.linspace(0.25, 0.75, len(y), dtype=y.dtype, device=y.device)
    # States that differ, whatever the batch: zeros would hide what is multiplied by them.
    y = y + torch.linspace(0.1, 0.9, y.numel(), dtype=y.dtype, device=y.device).view_as(y)
    other = torch.cat((y[:1] + 1, y[1:]))
    try:
        together = f(ts, y)
        neighbour = f(ts, other)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        return f"does not take a time for each sample, t (B,): {str(error).splitlines()[0]}"
    if together.shape != y.shape:
        return f"does not take a time for each sample: {tuple(y.shape)} became {tuple(together.shape)}"
    if not _equal(together[1:], neighbour[1:]):
        return "lets samples feel one another, so that they cannot have steps of their own"
    for i in (0, -1):
        if not _equal(together[i], f(ts[i], y)[i]):
            return "does not take a time for each sample: its values at t (B,) are not those at each t"
    return None


def _equal(a: Tensor, b: Tensor) -> bool:
    """Whether two results are equal up to rounding, since a batch may be summed in another order."""
    slack = 1e3 * torch.finfo(a.dtype).eps
    scale = float(b[b.isfinite()].abs().max()) if bool(b.isfinite().any()) else 1.0
    return bool(torch.isclose(a, b, rtol=slack, atol=slack * scale, equal_nan=True).all())
