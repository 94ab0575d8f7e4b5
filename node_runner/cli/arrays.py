"""Tensors as arrays, for files and figures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


Array = NDArray[np.float64]


def numpy(values: Tensor) -> Array:
    """A copy in float64 on the CPU."""
    array: Array = values.double().cpu().numpy()
    return array
