"""A device that is not the CPU, made of the CPU's memory: a tensor forgotten on the CPU fails as on a GPU.

    python -m pytest -p tests.elsewhere tests/contracts/test_pairs.py

runs these tests with `device=cpu` taken for that device. A tensor on it wraps one on the CPU. An operation of both
kinds is refused as CUDA refuses it, but for copies, for indices, and for tensors () of the CPU.

Source: PyTorch's Python backends (`torch.utils.backend_registration`) and wrapper subclasses. A registered backend
stays for the life of a process, hence a process of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from node_runner import runtime


NAME = "elsewhere"
HOST = torch.device("cpu")
aten = torch.ops.aten
COPIES = {aten.copy_.default, aten._to_copy.default}
TAKE_INDICES = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}


class Backend:
    """What torch asks of a device's module."""

    is_available = is_initialized = staticmethod(lambda: True)
    _is_in_bad_fork = staticmethod(lambda: False)
    current_device = staticmethod(lambda: 0)
    device_count = staticmethod(lambda: 1)
    manual_seed_all = staticmethod(lambda seed: None)


class Elsewhere(Tensor):
    """A tensor on the other device.

    Args:
        held: on the CPU, with the numbers.
    """

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Elsewhere:
        made: Elsewhere = Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            device=torch.device(NAME, 0),
        )  # fmt: skip
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return carry_out(function, args, kwargs or {})

    def __repr__(self, **kwargs: Any) -> str:
        return f"Elsewhere({self.detach().held!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if id(self) not in memo:
            copy: Tensor = Elsewhere(self.detach().held.clone())
            is_parameter = isinstance(self, nn.Parameter)
            memo[id(self)] = nn.Parameter(copy, self.requires_grad) if is_parameter else copy
        found: Tensor = memo[id(self)]
        return found

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.detach().held.__reduce_ex__(protocol)

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"can't convert {NAME}:0 device type tensor to numpy: use Tensor.cpu() first")

    numpy = __array__

    def tolist(self) -> Any:
        return self.detach().held.tolist()

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.held.untyped_storage()

    def data_ptr(self) -> int:
        return self.held.data_ptr()


def is_there(device: Any) -> bool:
    """Whether this names the other device."""
    return device is not None and torch.device(device).type == NAME


def carry_out(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """An operation of torch: on the CPU, and its results on the device on which they would be.

    Raises:
        RuntimeError: its tensors are on both.
    """
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, Elsewhere)]
    here = [tensor for tensor in tensors if not isinstance(tensor, Elsewhere)]
    if there and any(tensor.ndim > 0 for tensor in here) and function not in COPIES | TAKE_INDICES:
        shapes = ", ".join(f"{tuple(tensor.shape)} on {tensor.device}" for tensor in tensors)
        raise RuntimeError(f"Expected all tensors to be on the same device, but {function} got {shapes}")
    device = kwargs.get("device")
    if is_there(device):
        kwargs = {**kwargs, "device": HOST}
    args, kwargs = tree_map(lambda leaf: leaf.held if isinstance(leaf, Elsewhere) else leaf, (args, kwargs))
    with _disable_current_modes():
        results = function(*args, **kwargs)
    if function is aten._local_scalar_dense.default:
        return results
    if device is not None:
        goes_there = is_there(device)
    else:
        goes_there = bool(there) and (function is not aten.copy_.default or isinstance(tensors[0], Elsewhere))
    known = {id(tensor.held): tensor for tensor in there}  # what is written in place stays the same object

    def placed(result: Any) -> Any:
        if not isinstance(result, Tensor) or any(result is tensor for tensor in here):
            return result
        if id(result) in known:
            return known[id(result)]
        return Elsewhere(result) if goes_there else result

    return tree_map(placed, results)


class World(TorchDispatchMode):
    """Within this mode tensors can be made on the other device."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return carry_out(function, args, kwargs or {})


def load(path: Any, *, map_location: Any = None, **kwargs: Any) -> Any:
    """torch.load, to either device."""
    if not is_there(map_location):
        return _load(path, map_location=map_location, **kwargs)
    with _disable_current_modes():
        found = _load(path, map_location=HOST, **kwargs)
    return tree_map(lambda leaf: Elsewhere(leaf) if isinstance(leaf, Tensor) else leaf, found)


_load = torch.load


def gru_cell(x: Tensor, h: Tensor, w_in: Tensor, w_hidden: Tensor, b_in: Tensor, b_hidden: Tensor) -> Tensor:
    """torch's, whose fused kernel knows CUDA alone."""
    given, kept = (nn.functional.linear(a, w, b).chunk(3, 1) for a, w, b in ((x, w_in, b_in), (h, w_hidden, b_hidden)))
    reset, update = (torch.sigmoid(a + b) for a, b in zip(given[:2], kept[:2], strict=True))
    new = torch.tanh(given[2] + reset * kept[2])
    return new + update * (h - new)


def pytest_configure(config: pytest.Config) -> None:
    """Bring the device into being, and put every run on it."""
    _setup_privateuseone_for_python_backend(NAME, backend_module=Backend)
    torch.autograd.set_multithreading_enabled(False)  # the mode is this thread's
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=...) is seen by the mode
    torch.load = load
    torch._VF.gru_cell = gru_cell
    runtime.choose_device = lambda place: torch.device(NAME, 0)


@pytest.fixture(autouse=True)
def _world() -> Iterator[None]:
    with World():
        yield
