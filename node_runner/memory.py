"""Peak memory of a run, and the bytes that autograd keeps for backward.

On a GPU the peak is the CUDA allocator's, above what was allocated before. On a CPU it is the
process's resident memory: its high-water mark above what was resident before. Linux can reset
that mark, so a later job of a sweep is not charged for an earlier one, and glibc can give back what
an earlier one has freed, so that it is not spared either. Pages of files are left out there: the
first job of a process would be charged for the code that it is the first to run. Elsewhere the mark
of the whole process stands in, and `source` says so.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn


MB = 2**20
KEPT: list[Callable[[], object]] = []
"""Each frees what an engine keeps for solves to come."""

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Watches the peak from construction on.

    Args:
        device: whose memory is watched.

    Attributes:
        source: what is measured, in words.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            self.source = "CUDA allocator, peak above the baseline"
            torch.cuda.synchronize(device)
            torch.cuda.reset_peak_memory_stats(device)
            self._peak: Callable[[], int] = partial(torch.cuda.max_memory_allocated, device)
            self._baseline = torch.cuda.memory_allocated(device)
        elif _reset_high_water_mark():
            self.source = "resident memory of the process without pages of files, peak above the baseline"
            self._peak = partial(_without_files, "VmHWM")
            self._baseline = _without_files("VmRSS")
        else:
            self.source = "resident memory of the process, peak of its whole life above its peak so far"
            self._peak = _lifetime_peak
            self._baseline = _lifetime_peak()

    def peak_mb(self) -> float:
        """Peak above the baseline so far, in MiB."""
        return max(0, self._peak() - self._baseline) / MB


def _reset_high_water_mark() -> bool:
    """Ask Linux to forget the process's peak; false where it cannot."""
    _give_back_what_is_free()
    try:
        CLEAR.write_text("5")
    except OSError:
        return False
    return True


def _give_back_what_is_free() -> None:
    """Have engines and glibc return freed memory to the system: in the baseline, using it again would not show."""
    for free in KEPT:
        free()
    if not sys.platform.startswith("linux"):
        return
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _without_files(key: str) -> int:
    """A figure of resident memory without the pages of files that are resident now, in bytes."""
    return _status(key) - _status("RssFile")


def _status(key: str) -> int:
    """One figure of /proc/self/status, in bytes."""
    for line in STATUS.read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return 0


def _lifetime_peak() -> int:
    """The process's peak since it began, in bytes."""
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class SavedBytes:
    """Bytes of the distinct storages that autograd saved, in MiB once the block is left."""

    def __init__(self) -> None:
        self.mb = 0.0


class _Held:
    """A tensor that autograd keeps, for as long as autograd keeps it."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


@contextmanager
def saved_for_backward(model: nn.Module) -> Iterator[SavedBytes]:
    """Measure what autograd keeps from the forward pass in this block for the backward pass.

    Each storage counts once, whatever the number of tensors that share it; parameters and buffers
    do not count, since they are there anyway. What was kept for a while and let go within the block,
    as by the divergence inside a solve that records nothing, does not count either. Values and
    gradients are not changed.
    """
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    alive: weakref.WeakSet[_Held] = weakref.WeakSet()

    def pack(tensor: Tensor) -> _Held:
        # Detached: a node that kept its own output through here would keep itself alive for ever.
        held = _Held(tensor.detach())
        alive.add(held)
        return held

    saved = SavedBytes()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda held: held.tensor):
        yield saved
    storages = {}
    for held in alive:
        storage = held.tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
    saved.mb = sum(size for place, size in storages.items() if place not in own) / MB
