"""A module as a chain of linear layers, found once for each module and looked at again when it has changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from torch import nn
from torch.nn.modules import module as everywhere

from node_runner.tracing.purity import Impure, reads
from node_runner.tracing.recording import NoChain, Steps, record


Chain = Steps
"""Linear layers, first to last, with the activations after them, and what the first one sees: the state or a power of
it, and the time beside it or not."""

LAYERS = (nn.Linear, nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.Identity, nn.Tanh, nn.SiLU, nn.Softplus, nn.GELU,
          nn.ELU, nn.ReLU, nn.LeakyReLU, nn.Sigmoid)  # fmt: skip
"""Modules of torch that may be part of it."""

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
GLOBAL_HOOKS = tuple(f"_global{name}" for name in HOOKS)


class _Seen(NamedTuple):
    """What was found, and what it depends on.

    parts: the submodules. kinds: the type of the module and of each part. read: (position among these, name, value)
    of the plain attributes that a forward reads, settings of activations among them.
    """

    answer: Chain | str
    parts: tuple[nn.Module, ...]
    kinds: tuple[type, ...]
    read: tuple[tuple[int, str, Any], ...]


_seen: WeakKeyDictionary[nn.Module, dict[tuple[int, ...], _Seen]] = WeakKeyDictionary()
"""By module and, of the states (B, ..., D) or (D,) that it was run on, the dimensions before the last with B as 0."""


def chain_of(
    module: nn.Module, leading: Sequence[int] = (1,), *, counting: bool = False, discrete: bool = False
) -> Chain | str:
    """The chain that a module's f(t, y) is for some states, or the reason why it is not taken for one.

    Args:
        module: f.
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
    kept, key = _seen.setdefault(module, {}), (0, *leading[1:]) if leading else ()
    seen = kept.get(key)
    kinds = tuple(map(type, everything))
    if seen is None or seen.parts != everything[1:] or seen.kinds != kinds or not _same(seen.read, everything):
        seen = kept[key] = _look(module, leading, everything, kinds)
    if isinstance(seen.answer, str):
        return seen.answer
    if seen.answer.counts and not counting:
        return f"its forward may do more than compute: `self.{seen.answer.counts[0][1]} += 1`"
    tensors = {id(p) for linear in seen.answer.linears for p in (linear.weight, linear.bias) if p is not None}
    parameters = {id(p) for p in module.parameters()}
    if len(tensors) < sum(1 if linear.bias is None else 2 for linear in seen.answer.linears):
        return "it has parameters that are shared"
    if not tensors <= parameters or (len(tensors) < len(parameters) and not discrete):
        return "it has parameters beside its layers"
    if seen.answer.time_cut and not discrete:
        return "it sees the time as a mere number, which has no gradient"
    return seen.answer


def _same(read: Sequence[tuple[int, str, Any]], everything: Sequence[nn.Module]) -> bool:
    missing = object()
    return all(getattr(everything[i], name, missing) == value for i, name, value in read)


def _look(module: nn.Module, leading: Sequence[int], everything: Sequence[nn.Module], kinds: tuple[type, ...]) -> _Seen:
    read: list[tuple[int, str, Any]] = []
    counters: list[tuple[int, str]] = []
    answer: Chain | str
    try:
        for i, part in enumerate(everything):
            if type(part) in LAYERS:
                settings = () if type(part) is nn.Linear else getattr(part, "__constants__", ())
                read += [(i, name, getattr(part, name)) for name in settings]
                continue
            if type(part).__module__.split(".")[0] == "torch":
                raise NoChain(f"it has a {type(part).__name__}, which is none of the layers known here")
            found = reads(part)
            read += [(i, name, value) for name, value in found.values.items()]
            counters += [(i, name) for name in sorted(found.counters)]
        answer = _recorded(module, leading, [part for part in everything if type(part) is nn.Linear], counters)
    except (Impure, NoChain) as reason:
        answer = str(reason)
    return _Seen(answer, tuple(everything[1:]), kinds, tuple(read))


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
    for size in dict.fromkeys(linear.out_features for linear in reversed(linears)):
        try:
            first, second = (
                record(module, linears, _states(leading, batch, size), time, counters)
                for batch, time in ((2, 0.375), (3, -1.25))
            )
        except NoChain:
            raise
        except Exception:  # whatever a user's forward raises at states of another size
            continue
        if first == second and first.linears[-1].out_features == size:
            return first
    shape = ", ".join(map(str, _states(leading, "B", "D")))
    raise NoChain(f"it does not run on states ({shape}), with the time as a number")


def _states(leading: Sequence[int], batch: Any, size: Any) -> tuple[Any, ...]:
    """The shape of states (batch, ..., size), or of one state (size,)."""
    return (batch, *leading[1:], size) if leading else (size,)
