"""What training made of a model."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Trained:
    """What training made of a model.

    Attributes:
        status: completed, or interrupted.
        reason: why it ended.
        step: optimiser steps taken; best_step: where val/loss was lowest.
        best: metrics of the best validation.
        last: the latest line of training metrics.
        totals: sums over the whole run: seconds (of optimiser steps), nfe_forward, nfe_backward,
            and seconds_total with validations.
    """

    status: str = "completed"
    reason: str = "all steps done"
    step: int = 0
    best_step: int = 0
    best: dict[str, float] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    totals: dict[str, float] = field(
        default_factory=lambda: {"seconds": 0.0, "seconds_total": 0.0, "nfe_forward": 0.0, "nfe_backward": 0.0}
    )
