"""Ranges of numbers, written on the annotation of a setting and checked before any work:

rtol: Annotated[float, Above(0)] = 1e-4
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from node_runner.errors import ConfigError


@dataclass(frozen=True)
class Above:
    """A number greater than `low`."""

    low: float

    def allows(self, value: float) -> bool:
        """Whether a number is in the range."""
        return value > self.low

    def __str__(self) -> str:
        return f"a number above {self.low:g}"


@dataclass(frozen=True)
class AtLeast:
    """A number not less than `low`."""

    low: float

    def allows(self, value: float) -> bool:
        """Whether a number is in the range."""
        return value >= self.low

    def __str__(self) -> str:
        return f"a number of at least {self.low:g}"


@dataclass(frozen=True)
class AtMost:
    """A number not greater than `high`."""

    high: float

    def allows(self, value: float) -> bool:
        """Whether a number is in the range."""
        return value <= self.high

    def __str__(self) -> str:
        return f"a number of at most {self.high:g}"


@dataclass(frozen=True)
class Between:
    """A number from `low` to `high`, both included."""

    low: float
    high: float

    def allows(self, value: float) -> bool:
        """Whether a number is in the range."""
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return f"a number from {self.low:g} to {self.high:.7g}"


Range = Above | AtLeast | AtMost | Between

Positive = Annotated[float, Above(0)]
NonNegative = Annotated[float, AtLeast(0)]
Share = Annotated[float, Between(0, 1)]
Relative = Annotated[float, Above(0), AtMost(1)]
Count = Annotated[int, AtLeast(1)]
CountOrZero = Annotated[int, AtLeast(0)]
Width = Annotated[int, Between(1, 1_000_000)]
WidthOrZero = Annotated[int, Between(0, 1_000_000)]
"""Numbers side by side, of a layer or a state. Memory ends many sums before that; what is longer is a typing error."""
Depth = Annotated[int, Between(1, 10_000)]
"""Layers, and what else is done one after another."""
SMALLEST, LARGEST = 1.2e-38, 3.4e38
"""Sizes of any number but 0, since these are what float32 holds."""
MOST = 2**31 - 1
"""The largest whole number of a setting whose range has no end: sums and products of a few such are exact in int64."""
HIGHEST_POWER = 5
Power = Annotated[int, Between(1, HIGHEST_POWER)]
Seed = Annotated[int, Between(0, 2**63 - 1)]


def in_words(found: Sequence[Range]) -> str:
    """All ranges of a number: `a number above 0 and of at most 1`."""
    first, *others = map(str, found)
    return " and ".join([first, *(other.removeprefix("a number ") for other in others)])


def ranges(annotation: Any) -> list[Range]:
    """The ranges written on an annotation, also inside `X | None`."""
    found = [note for note in getattr(annotation, "__metadata__", ()) if isinstance(note, Range)]
    for part in typing.get_args(annotation):
        found += ranges(part)
    return found


def check(config: Any, path: str) -> None:
    """Refuse settings outside their range, and keys that no class declares.

    Args:
        config: an instance of a dataclass; nested dataclasses and dicts of them are checked too.
        path: the key under which it stands in the configuration, for the message.

    Raises:
        ConfigError: naming the key, the range and the value.
    """
    declared = {field.name for field in dataclasses.fields(config)}
    hints = typing.get_type_hints(type(config), include_extras=True)
    prefix = f"{path}." if path else ""
    for name, value in vars(config).items():
        key = prefix + name
        if name not in declared:
            raise ConfigError(f"{key}: no such setting (known: {', '.join(sorted(declared))})")
        numbers = value if isinstance(value, list) else [value]
        for number in numbers:
            if isinstance(number, bool) or not isinstance(number, int | float):
                continue
            if isinstance(number, float) and not math.isfinite(number):
                raise ConfigError(f"{key}: expected a finite number, got {number}")
            allowed = ranges(hints[name])
            if not all(limit.allows(number) for limit in allowed):
                raise ConfigError(f"{key}: expected {in_words(allowed)}, got {number!r}")
            if isinstance(number, int) and not any(hasattr(limit, "high") for limit in allowed) and abs(number) > MOST:
                raise ConfigError(f"{key}: expected a whole number of at most {MOST}, got {number}")
            if number and not SMALLEST <= abs(number) <= LARGEST:
                raise ConfigError(f"{key}: expected a number of a size that can be computed with, got {number}")
        children = value.items() if isinstance(value, dict) else [(None, value)]
        for child_name, child in children:
            if dataclasses.is_dataclass(child) and not isinstance(child, type):
                check(child, f"{key}.{child_name}" if child_name else key)
