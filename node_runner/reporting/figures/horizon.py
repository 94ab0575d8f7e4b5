"""Times beyond the training horizon."""

from __future__ import annotations

from typing import Any

import numpy as np


def beyond(ts: Any, horizon: float) -> Any:
    """Which of the times `ts`, an array or one time, are after the horizon, by more than float32 rounds a time.

    >>> beyond(np.float32([-0.4, -0.3, -0.2]), -0.3)
    array([False, False,  True])
    """
    return np.asarray(ts) > horizon + 1e-6 * abs(horizon)
