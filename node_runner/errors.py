"""The errors of this package. Each says what was expected, what came, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class NodeRunnerError(Exception):
    """Base of every error that node-runner raises on purpose."""


class ConfigError(NodeRunnerError, ValueError):
    """What the user asked for cannot be done as written: a name, a type, a value, a combination."""


class DataError(ConfigError):
    """A data file is missing, truncated or not what its name says."""


class RunError(NodeRunnerError, RuntimeError):
    """A run that started could not finish."""


class SolveFailed(RunError):
    """The solver gave up: underflow of the step, the step budget, or a state that is not finite."""


class Diverged(RunError):
    """Training produced a loss or a gradient that is not finite."""


def either(names: Iterable[str]) -> str:
    """The names in words; nothing for none.

    >>> either(["augmented", "node", "resnet"])
    'augmented, node or resnet'
    """
    *others, last = list(names) or [""]
    return f"{', '.join(others)} or {last}" if others else last


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """A closing sentence for an unknown `name`: the nearest option, or the one that holds it, and all of them.

    >>> did_you_mean("dopri", ["dopri5", "rk4"])
    "did you mean 'dopri5'? (choose from dopri5, rk4)"
    """
    options = sorted(options)
    likeness = {option: difflib.SequenceMatcher(None, name, option).ratio() for option in options}
    nearest = max(options, key=likeness.__getitem__, default="")
    known = f"choose from {', '.join(options)}"
    holding = [option for option in options if len(name) > 2 and name in option]
    if likeness.get(nearest, 0.0) < 0.5:
        nearest = holding[0] if len(holding) == 1 else ""
    return f"did you mean '{nearest}'? ({known})" if nearest else known
