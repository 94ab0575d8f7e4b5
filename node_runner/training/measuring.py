"""Parts of the data measured one after another, of which one may fail and the others stand."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from node_runner.errors import SolveFailed


if TYPE_CHECKING:
    from node_runner.training.loop import Trainer


log = logging.getLogger("node_runner")


def warn(name: str, failure: SolveFailed) -> None:
    """Log that a part could not be measured."""
    log.warning("%s could not be measured: %s", name, failure)


def measured(
    trainer: Trainer, parts: Mapping[str, Any], failed: Callable[[str, SolveFailed], object] = warn
) -> dict[str, float]:
    """Metrics of each part, by names such as test/mse.

    A field may fail beyond the region it was trained on, and that is a result: the loss of such a part is NaN.

    Args:
        trainer: of the model.
        parts: by name.
        failed: hears of a part whose solve failed, and why.
    """
    found: dict[str, float] = {}
    for name, part in parts.items():
        try:
            found |= {f"{name}/{metric}": value for metric, value in trainer.evaluate(part).items()}
        except SolveFailed as failure:
            failed(name, failure)
            found[f"{name}/loss"] = math.nan
    return found
