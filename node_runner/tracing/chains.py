"""A module as a chain of linear layers, found once for each module and looked at again when it has changed."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, ref

import torch
from torch import nn
from torch.nn.modules import module as everywhere

from node_runner.tracing.closed import Closed, bound, variables
from node_runner.tracing.definition import Impure
from node_runner.tracing.purity import FUNCTIONS, check_function, reads
from node_runner.tracing.recording import NoChain, Steps, record


Chain = Steps
"""Linear layers, first to last, with the activations after them, and what the first one sees: the state or a power of
it, and the time beside it or not."""

LAYERS = (nn.Linear, nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.Identity, nn.Tanh, nn.SiLU, nn.Softplus, nn.GELU,
          nn.ELU, nn.ReLU, nn.LeakyReLU, nn.Sigmoid)  # fmt: skip
"""Modules of torch that may be part of it."""

MOST_KINDS = 100
"""Kinds of states and functions that are remembered of a module."""

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
GLOBAL_HOOKS = tuple(f"_global{name}" for name in HOOKS)


NOT_THE_USERS = (str(Path(torch.__file__).parent), str(Path(__file__).parent))
"""Folders of the code between a user's forward and what it fails in."""


class _Seen(NamedTuple):
    """What was found, and what it depends on.

    answer: without its layers. places: of these among all modules. parts: the submodules. kinds: the type of the
    module and of each part, with the code of its forward. read: (position among these, name, value) of the plain
    attributes that a forward reads, settings of activations among them. outside: (global names, name, value) likewise.
    """

    answer: Chain | str
    places: tuple[int, ...]
    parts: tuple[ref[nn.Module], ...]
    kinds: tuple[tuple[type, Any], ...]
    read: tuple[tuple[int, str, Any], ...]
    outside: tuple[tuple[Mapping[str, Any], str, Any], ...]


_seen: WeakKeyDictionary[nn.Module, dict[Any, _Seen]] = WeakKeyDictionary()
"""By module and, of the states (B, ..., D) or (D,) that it was run on, the dimensions before the last with B as 0.

A function is found with the first module that it names, by what else it names: it may be made anew for each call.
Nothing here holds a module.
"""


def chain_of(
    module: nn.Module, leading: Sequence[int] = (1,), *, counting: bool = False, discrete: bool = False
) -> Chain | str:
    """The chain that a module's f(t, y) is for some states, or the reason why it is not taken for one.

    Args:
        module: f, of a function `as_module`.
        leading: the dimensions (B, ...) of the states (B, ..., D) before the last, or () of one state (D,). What is
            found holds for any B, and for the others as they are.
        counting: the module may count its calls, `self.nfe += 1`.
        discrete: no adjoint is solved, in whose error such things count: the module may have parameters beside its
            layers, and see the time as a mere number.
    """
    everything = tuple(module.modules())
    hooked = any(getattr(part, hooks, None) for part in everything for hooks in HOOKS)
    if hooked or any(getattr(everywhere, hooks, None) for hooks in GLOBAL_HOOKS):
        return "it has hooks, which would not run"
    if any("forward" in vars(part) for part in everything):
        return "its forward was replaced on the instance"
    names: tuple[Any, ...] = ()
    if isinstance(module, Closed):
        if len(everything) == 1:
            return "it names no module"
        names = _names(module.function, everything)
    kept = _seen.setdefault(everything[1] if names else module, {})
    key = (names, (0, *leading[1:]) if leading else ())
    seen = kept.get(key)
    kinds = tuple((type(part), getattr(type(part).forward, "__code__", None)) for part in everything)
    if seen is None or seen.kinds != kinds or not _are(seen.parts, everything[1:]) or not _same(seen, everything):
        if len(kept) >= MOST_KINDS:
            kept.clear()
        seen = kept[key] = _look(module, leading, everything, kinds)
    if isinstance(seen.answer, str):
        return seen.answer
    linears = tuple(part for i in seen.places if isinstance(part := everything[i], nn.Linear))
    answer = seen.answer._replace(linears=linears)
    if answer.counts and not counting:
        return f"its forward may do more than compute: `self.{answer.counts[0][1]} += 1`"
    tensors = {id(p) for linear in answer.linears for p in (linear.weight, linear.bias) if p is not None}
    parameters = {id(p) for p in module.parameters()}
    if len(tensors) < sum(1 if linear.bias is None else 2 for linear in answer.linears):
        return "it has parameters that are shared"
    if not tensors <= parameters or (len(tensors) < len(parameters) and not discrete):
        return "it has parameters beside its layers"
    if answer.time_cut and not discrete:
        return "it sees the time as a mere number, which has no gradient"
    return answer


def _names(function: Callable[..., Any], everything: Sequence[nn.Module]) -> tuple[Any, ...]:
    """What a function is, its modules by their places among these, and what else it names, as far as it may matter."""
    places = {id(part): i for i, part in enumerate(everything)}

    def known(value: Any) -> Any:
        if isinstance(value, nn.Module):
            return places.get(id(value))
        if isinstance(value, bool | int | float | str):
            return type(value), value
        return value if isinstance(value, ModuleType) or _is_function(value) else type(value)

    _, inner = bound(function)
    assert inner is not None, "it names modules"
    return (inner.__code__, *((name, known(value)) for name, value in variables(function).items()))


def _is_function(value: Any) -> bool:
    return callable(value) and value.__hash__ is not None and value in FUNCTIONS


def _are(parts: Sequence[ref[nn.Module]], modules: Sequence[nn.Module]) -> bool:
    return len(parts) == len(modules) and all(part() is module for part, module in zip(parts, modules, strict=True))


def _same(seen: _Seen, everything: Sequence[nn.Module]) -> bool:
    missing = object()
    return all(getattr(everything[i], name, missing) == value for i, name, value in seen.read) and all(
        known.get(name) is value for known, name, value in seen.outside
    )


def _look(
    module: nn.Module, leading: Sequence[int], everything: Sequence[nn.Module], kinds: tuple[tuple[type, Any], ...]
) -> _Seen:
    read: list[tuple[int, str, Any]] = []
    counters: list[tuple[int, str]] = []
    outside: list[tuple[Mapping[str, Any], str, Any]] = []
    answer: Chain | str
    try:
        for i, part in enumerate(everything):
            if isinstance(part, Closed):
                check_function(part.function)
                continue
            if type(part) in LAYERS:
                settings = () if type(part) is nn.Linear else getattr(part, "__constants__", ())
                read += [(i, name, getattr(part, name)) for name in settings]
                continue
            if type(part).__module__.split(".")[0] == "torch":
                raise NoChain(f"it has a {type(part).__name__}, which is none of the layers known here")
            found = reads(part)
            read += [(i, name, value) for name, value in found.values.items()]
            counters += [(i, name) for name in sorted(found.counters)]
            outside += [(found.known, name, value) for name, value in found.outside.items()]
        answer = _recorded(module, leading, [part for part in everything if type(part) is nn.Linear], counters)
    except (Impure, NoChain) as reason:
        answer = str(reason)
    places: tuple[int, ...] = ()
    if not isinstance(answer, str):
        where = {id(part): i for i, part in enumerate(everything)}
        places, answer = tuple(where[id(linear)] for linear in answer.linears), answer._replace(linears=())
    return _Seen(answer, places, tuple(map(ref, everything[1:])), kinds, tuple(read), tuple(outside))


def _recorded(
    module: nn.Module, leading: Sequence[int], linears: list[nn.Linear], counters: list[tuple[int, str]]
) -> Chain:
    """The chain that a module was seen to compute, the same in two runs with other batches and times.

    Raises:
        NoChain: it computes something else.
    """
    if not linears:
        raise NoChain("it has no linear layers")
    if len({(linear.weight.dtype, linear.weight.device) for linear in linears}) != 1:
        raise NoChain("its layers differ in dtype or device")
    raised = ""
    for size in dict.fromkeys(linear.out_features for linear in reversed(linears)):
        try:
            first, second = (
                record(module, linears, _states(leading, batch, size), time, counters)
                for batch, time in ((2, 0.375), (3, -1.25))
            )
        except NoChain:
            raise
        except Exception as error:  # whatever a user's forward raises, at states of another size too
            raised = raised or f": {_in_words(error)}"
            continue
        if first == second and first.linears[-1].out_features == size:
            return first
    shape = ", ".join(map(str, _states(leading, "B", "D")))
    raise NoChain(f"it does not run on states ({shape}), with the time as a number{raised}")


def _in_words(error: Exception) -> str:
    """The first line of what a user's forward raised, and the place in the user's code."""
    frames = [each for each in traceback.extract_tb(error.__traceback__) if not each.filename.startswith(NOT_THE_USERS)]
    said = str(error).strip().partition("\n")[0]
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {said}{place}"


def _states(leading: Sequence[int], batch: Any, size: Any) -> tuple[Any, ...]:
    """The shape of states (batch, ..., size), or of one state (size,)."""
    return (batch, *leading[1:], size) if leading else (size,)
