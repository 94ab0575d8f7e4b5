"""Refuses data whose numbers cannot be computed with, which extreme settings make."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from node_runner.errors import ConfigError
from node_runner.views import DataSpec, Splits


REMEDY = "use less extreme settings of the data set"


@contextmanager
def making(name: str) -> Iterator[None]:
    """Around whatever makes numbers of a data set: NumPy's warnings of an overflow say less than the refusals do.

    Raises:
        ConfigError: one of Python's own numbers overflows.
    """
    try:
        with np.errstate(all="ignore"):
            yield
    except OverflowError as error:
        raise ConfigError(f"dataset={name}: its numbers are too large to compute with ({error}); {REMEDY}") from error


def check_numbers(name: str, spec: DataSpec, splits: Splits[Any], dtype: torch.dtype) -> None:
    """Refuse data that are not finite in the precision of the run, and times that are not apart in it.

    Raises:
        ConfigError: they are so.
    """
    precision = f"device.precision={str(dtype).removeprefix('torch.')}"
    # Neither is finite where one number of the training part is not.
    if not all(moment.to(dtype).isfinite().all() for moment in (spec.mean, spec.std)):
        raise ConfigError(f"dataset={name}: its numbers are too large for {precision}; {REMEDY}")
    ts = getattr(splits.train, "ts", None)
    if ts is not None and (met := (ts.diff() > 0) & (ts.to(dtype).diff() <= 0)).any():
        closest = float(ts.diff()[met].min())
        raise ConfigError(
            f"dataset={name}: times that are {closest:.3g} apart are the same in {precision}; use "
            "device.precision=float64, times that count from the first one, or a larger unit of time"
        )
