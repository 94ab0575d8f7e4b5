"""Convolutions of images on the CPU, in the form and the order of memory in which oneDNN computes them fastest.

Two rewritings of a field's graph, which leave its numbers as they are but for rounding:

* A channel that is the same for the whole batch, such as the time, is convolved once: conv([t, x]) = conv(t) + conv(x).
* The states of a step lie with their channels last, and GroupNorm is written as sums over pixels, channel by channel.

A training step of image-block of experiments/benchmarks/engines, x over torchdiffeq (seconds of a busy CPU, medians
of 6 to 8 rounds): 1.58 without them, 2.10 with both, 1.01 with 65 channels that are last. Four fifths of the time are
convolutions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor, fx
from torch.overrides import TorchFunctionMode

from node_runner.engines.compiled.inductor import in_memory


aten = torch.ops.aten

LEAST_IMAGES = 16
"""In a batch from which on a constant channel is convolved apart: of fewer images a second call costs what it saves."""

VECTOR = 16
"""Numbers of float32 in AVX-512. Channels that fill no whole vectors make loops over them slow when they come last."""


# --- channels that are the same for the whole batch


class ConstantChannels(TorchFunctionMode):
    """Within this block conv2d of joined channels convolves those apart that are constant, for one image."""

    def __init__(self) -> None:
        super().__init__()
        # With the results themselves, whose addresses must not be used again.
        self.joined: dict[int, tuple[Tensor, Sequence[Tensor]]] = {}

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of torch."""
        kwargs = kwargs or {}
        if function is torch.conv2d and args and id(args[0]) in self.joined:
            return self._convolve(*args, **kwargs)
        result = function(*args, **kwargs)
        if function in (torch.cat, torch.concat, torch.concatenate) and args and result.ndim == 4:
            dim = args[1] if len(args) > 1 else kwargs.get("dim", 0)
            if dim in (1, -3):
                self.joined[id(result)] = result, args[0]
        return result

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None = None, *rest: Any, **more: Any) -> Tensor:
        parts = self.joined[id(x)][1]
        fixed = [_constant(part) for part in parts]
        split = len(set(fixed)) == 2 and x.device.type == "cpu" and len(x) >= LEAST_IMAGES
        if not split or weight.shape[1] != x.shape[1]:
            return torch.conv2d(x, weight, bias, *rest, **more)
        pairs = list(zip(parts, weight.split([part.shape[1] for part in parts], 1), fixed, strict=True))
        varying = _joined([(part, kernel) for part, kernel, constant in pairs if not constant])
        constant = _joined([(part[:1], kernel) for part, kernel, constant in pairs if constant])
        return torch.conv2d(*varying, bias, *rest, **more) + torch.conv2d(*constant, None, *rest, **more)


def _constant(part: Tensor) -> bool:
    """Whether it is one number a channel, expanded."""
    return part.stride(0) == part.stride(2) == part.stride(3) == 0


def _joined(pairs: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    if len(pairs) == 1:
        return pairs[0]
    return torch.cat([part for part, _ in pairs], 1), torch.cat([kernel for _, kernel in pairs], 1)


# --- channels last


def gains(graph: fx.GraphModule) -> bool:
    """Whether a graph is faster with channels last: oneDNN computes its convolutions, their channels fill vectors."""
    # What counts in places of memory was written down for channels first.
    counts = any("as_strided" in str(node.target) for node in graph.graph.nodes)
    if counts or not torch.backends.mkldnn.is_available():
        return False
    nodes: list[Any] = graph.graph.find_nodes(op="call_function", target=_CONVOLUTION)
    batches = [node.args for node in nodes if len(node.args[0].meta["val"]) > 1]
    return bool(batches) and all(map(_aligned, batches))


def _aligned(arguments: Any) -> bool:
    x, weight = (node.meta["val"] for node in arguments[:2])
    transposed, groups = arguments[6], arguments[8]
    return _image(x) and not transposed and groups == 1 and all(size % VECTOR == 0 for size in weight.shape[:2])


def inside(graph: fx.GraphModule) -> Callable[..., Any]:
    """The same function of the same tensors, in which images have channels last from its arguments to its results."""

    def within(*groups: Any) -> Any:
        return pytree.tree_map(_first, graph(*pytree.tree_map(_last, groups)))

    return within


def _image(x: Tensor) -> bool:
    return x.ndim == 4 and x.device.type == "cpu" and x.dtype is torch.float32


def _last(x: Tensor) -> Tensor:
    # The stride tells where an image of one channel is both.
    if not _image(x) or (x.is_contiguous(memory_format=torch.channels_last) and x.stride(1) == 1):
        return x
    return in_memory(x.clone(memory_format=torch.channels_last))


def _first(x: Tensor) -> Tensor:
    return x if x.is_contiguous() else in_memory(x).contiguous()


def _convolution(x: Tensor, weight: Tensor, *rest: Any) -> Any:
    moved = _last(x), _last(weight)
    if moved[0] is x and moved[1] is weight:
        return NotImplemented
    found = _CONVOLUTION(*moved, *rest)
    # Of one image it has its channels first, whatever the graph says.
    return in_memory(found.clone(memory_format=torch.channels_last)) if len(x) == 1 else found


def _convolution_backward(tangent: Tensor, x: Tensor, weight: Tensor, *rest: Any) -> Any:
    moved = _last(tangent), _last(x), _last(weight)
    if moved[0] is tangent and moved[1] is x and moved[2] is weight:
        return NotImplemented
    return _CONVOLUTION_BACKWARD(*moved, *rest)


def _view(x: Tensor, shape: Sequence[int]) -> Any:
    # The graph was written down for tensors in another order.
    return NotImplemented if x.is_contiguous() else aten.view.default(x.contiguous(), shape)


def _group_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, n: int, c: int, pixels: int, groups: int, eps: float
) -> Any:
    """(normed (N, C, H, W), mean (N, G), 1 / standard deviation (N, G))."""
    if not _image(x):
        return NotImplemented
    x = _last(x)
    mean = _means(x.sum((2, 3)), groups, pixels)
    centred = x - _each(_channels(mean, c))
    inverse = in_memory(torch.rsqrt(_means((centred * centred).sum((2, 3)), groups, pixels) + eps))
    scale = _channels(inverse, c)
    if weight is not None:
        scale = in_memory(scale * weight)
    normed = centred * _each(scale)
    return normed if bias is None else normed + _each(bias), mean, inverse


def _group_norm_backward(
    tangent: Tensor, x: Tensor, mean: Tensor, inverse: Tensor, weight: Tensor | None, n: int, c: int, pixels: int,
    groups: int, mask: Sequence[bool],
) -> Any:  # fmt: skip
    """The gradients of x, weight and bias."""
    if not _image(x):
        return NotImplemented
    tangent, x = _last(tangent), _last(x)
    inverse = _channels(inverse, c)
    unit = (x - _each(_channels(mean, c))) * _each(inverse)
    bias_part, weight_part = tangent.sum((2, 3)), (tangent * unit).sum((2, 3))
    factor = torch.ones_like(inverse) if weight is None else weight

    def shared(part: Tensor) -> Tensor:
        return _each(in_memory(_channels(_means(part * factor, groups, pixels), c) * inverse))

    by_x = tangent * _each(in_memory(factor * inverse)) - shared(bias_part) - unit * shared(weight_part)
    by_weight, by_bias = weight_part.sum(0), bias_part.sum(0)
    return tuple(found if wanted else None for found, wanted in zip((by_x, by_weight, by_bias), mask, strict=True))


def _means(sums: Tensor, groups: int, pixels: int) -> Tensor:
    """(N, C) sums over the pixels -> (N, G) means over the pixels and channels of each group."""
    grouped = sums.view(len(sums), groups, -1)
    return in_memory(grouped.sum(-1) / (grouped.shape[-1] * pixels))


def _channels(x: Tensor, channels: int) -> Tensor:
    """(N, G) -> (N, C)."""
    # In memory, for a loop over channels with groups in it is not vectorised.
    return in_memory(x[:, :, None].expand(*x.shape, channels // x.shape[1]).reshape(len(x), channels))


def _each(x: Tensor) -> Tensor:
    """(..., C) -> (..., C, 1, 1): the same for every pixel."""
    return x[..., None, None]


_CONVOLUTION = aten.convolution.default
_CONVOLUTION_BACKWARD = aten.convolution_backward.default

CHANNELS_LAST = {
    _CONVOLUTION: _convolution,
    _CONVOLUTION_BACKWARD: _convolution_backward,
    aten.view.default: _view,
    aten.native_group_norm.default: _group_norm,
    aten.native_group_norm_backward.default: _group_norm_backward,
}
"""Decompositions of a graph that is faster with channels last."""
