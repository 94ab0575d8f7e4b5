"""What engine=compiled compiles for a call, before it solves it, so that it fails where torchdiffeq can still serve."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import Any

import torch

from node_runner.drop_in.plan import Plan
from node_runner.errors import ConfigError


MOST_KINDS = 200
"""Kinds of calls that are remembered."""

MOST_VALUES = 8
"""Kinds that differ in plain numbers alone, such as a rate that falls with every call, which are compiled."""

RESTLESS = (
    f"it was compiled {MOST_VALUES} times for other numbers in it, and is not compiled for more: keep a number that "
    "changes in a tensor"
)

_known: dict[Any, tuple[str | None, list[Any]]] = {}
"""Why compiling for a kind of call failed, or None, with what its key knows by address."""

_alike: Counter[Any] = Counter()
"""How many kinds were compiled that are the same but for plain numbers."""


def failed(plan: Plan) -> str | None:
    """Why such a call is not compiled, where that failed before."""
    kind = _kind(plan)
    if kind in _known:
        return _known[kind][0]
    return RESTLESS if _alike[_without_numbers(kind)] >= MOST_VALUES else None


def compiled(plan: Plan) -> bool:
    """Compile what a call needs, its gradient included, if that was not done before; with a warning where it fails."""
    kind = _kind(plan)
    if kind not in _known:
        assert plan.reading is not None
        if len(_known) >= MOST_KINDS:
            _known.clear()
            _alike.clear()
        _known[kind] = (_failure(plan), plan.reading.held)
        alike = _without_numbers(kind)
        _alike[alike] += 1
        if reason := _known[kind][0]:
            warnings.warn(f"{reason}: torchdiffeq serves this call, and those like it", stacklevel=4)
        elif _alike[alike] == MOST_VALUES:
            warnings.warn(f"the field's numbers change: {RESTLESS}. torchdiffeq serves other values", stacklevel=4)
    return _known[kind][0] is None


def _failure(plan: Plan) -> str | None:
    work = plan.engine.prepare(plan.method, plan.field, plan.y0, plan.norm, _adjoint(plan))
    try:
        if work is not None:
            work()
    except ConfigError as reason:
        return str(reason).removesuffix("; use engine=torchdiffeq")
    return None


def _adjoint(plan: Plan) -> str | None:
    """The gradient's name, or None if nothing wants one."""
    wanted = plan.y0.requires_grad or bool(plan.tensors)
    return plan.gradient.adjoint if torch.is_grad_enabled() and wanted else None


def _kind(plan: Plan) -> tuple[Any, ...]:
    assert plan.reading is not None
    options = tuple(sorted((name, str(value)) for name, value in plan.method.options.items()))
    state = plan.y0.shape, plan.y0.dtype, plan.y0.device
    return (plan.reading.key, *state, plan.method.name, options, _adjoint(plan), torch.get_num_threads())


def _without_numbers(kind: tuple[Any, ...]) -> tuple[Any, ...]:
    """What kinds of calls have in common whose fields differ in numbers alone."""
    key, *others = kind
    return (tuple(part for part in key if type(part) not in (int, float, complex)), *others)
