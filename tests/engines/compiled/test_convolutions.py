"""Convolutions that are rewritten for the CPU: the same numbers, in another form and order of memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from node_runner.engines.compiled.compilation import machine_code
from node_runner.engines.compiled.convolutions import CHANNELS_LAST, LEAST_IMAGES
from node_runner.engines.compiled.inductor import missing
from node_runner.engines.compiled.tracing import fake_mode, trace
from node_runner.fields.conv import Conv
from node_runner.settings import Activation


aten = torch.ops.aten
compiles = pytest.mark.skipif(missing("cpu") is not None, reason=str(missing("cpu")))
onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch is built without oneDNN")

MANY, FEW = 16, 4


def field(channels: int, dtype: torch.dtype) -> nn.Module:
    """A convolutional field without kinks, whose weights all matter."""
    torch.manual_seed(1)
    made = Conv((channels, 4, 5), activation=Activation.tanh).to(dtype)
    for parameter in made.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return made


def arguments(made: nn.Module, images: int, channels: int) -> list[list[Tensor]]:
    """Time and state, a tangent, and the weights of a field."""
    weights = [p.detach() for p in made.parameters()]
    like = weights[0]
    generator = torch.Generator().manual_seed(2)
    state, tangent = (torch.randn(images, channels, 4, 5, generator=generator).to(like) for _ in range(2))
    return [[like.new_tensor(0.7), state], [tangent], weights]


def gradient(made: nn.Module) -> Callable[..., list[Tensor]]:
    """(time and state, tangent, weights) -> the slope, and its gradients by all of them."""
    names = [name for name, _ in made.named_parameters()]

    def compute(states: Sequence[Tensor], tangents: Sequence[Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
        leaves = [tensor.detach().requires_grad_(True) for tensor in (*states, *weights)]
        with torch.enable_grad():
            t, y, *own = leaves
            slope = torch.func.functional_call(made, dict(zip(names, own, strict=True)), (t, y))
            return [slope.detach(), *torch.autograd.grad(slope, leaves, tangents)]

    return compute


def flat(groups: list[list[Tensor]]) -> list[Tensor]:
    return [tensor for group in groups for tensor in group]


def traced(channels: int, dtype: torch.dtype, images: int = LEAST_IMAGES) -> tuple[fx.GraphModule, Any, Any]:
    """The graph of a field's slope and gradients, its arguments, and what the field itself gives in float64."""
    made = field(channels, dtype)
    groups = arguments(made, images, channels)
    graph = trace(gradient(made), groups, fake_mode())
    exact = gradient(made.double())(*([tensor.double() for tensor in group] for group in groups))
    return graph, flat(groups), exact


def convolutions(graph: fx.GraphModule) -> list[Any]:
    return [node.args for node in graph.graph.find_nodes(op="call_function", target=aten.convolution.default)]


def assert_near(found: Sequence[Tensor], exact: Sequence[Tensor], tolerance: float) -> None:
    for ours, right in zip(found, exact, strict=True):
        assert ours.is_contiguous()
        assert float((ours.double() - right).norm()) <= tolerance * max(1.0, float(right.norm()))


def test_a_constant_channel_is_convolved_once():
    graph, given, exact = traced(FEW, torch.float64)
    assert_near(graph(*given), exact, 1e-12)
    shapes = [tuple(x.meta["val"].shape[:2]) for x, *_ in convolutions(graph)]
    assert shapes == 2 * [(LEAST_IMAGES, FEW), (1, 1)]


def test_few_images_are_convolved_as_they_are():
    graph, given, exact = traced(FEW, torch.float64, images=2)
    assert_near(graph(*given), exact, 1e-12)
    assert [tuple(x.meta["val"].shape[:2]) for x, *_ in convolutions(graph)] == 2 * [(2, FEW + 1)]


def test_channels_that_differ_between_images_or_pixels_are_not_constant():
    def compute(states: Sequence[Tensor]) -> list[Tensor]:
        images, numbers, row, kernel = states
        parts = (numbers[:, None, None, None].expand_as(images), images, row.expand_as(images))
        return [torch.conv2d(torch.cat(parts, 1), kernel)]

    images, kernel = torch.randn(LEAST_IMAGES, 1, 5, 5), torch.randn(2, 3, 3, 3)
    graph = trace(compute, [[images, torch.randn(LEAST_IMAGES), torch.randn(5), kernel]], fake_mode())
    assert [x.meta["val"].shape[:2] for x, *_ in convolutions(graph)] == [(LEAST_IMAGES, 3)]


def test_several_constant_channels_among_others():
    kernel = torch.randn(2, 5, 3, 3, dtype=torch.float64)
    images = torch.randn(LEAST_IMAGES, 2, 5, 5, dtype=torch.float64)
    numbers = torch.randn(2, dtype=torch.float64)

    def compute(states: Sequence[Tensor]) -> list[Tensor]:
        images, numbers, kernel = states
        a, b = (number.expand(len(images), 1, 5, 5) for number in numbers)
        joined = torch.cat((images[:, :1], a, images[:, 1:], b, images[:, :1]), dim=-3)
        return [torch.conv2d(joined, kernel, None, stride=2, padding=1)]

    graph = trace(compute, [[images, numbers, kernel]], fake_mode())
    assert [x.meta["val"].shape[:2] for x, *_ in convolutions(graph)] == [(LEAST_IMAGES, 3), (1, 2)]
    torch.testing.assert_close(graph(images, numbers, kernel), tuple(compute([images, numbers, kernel])))


@onednn
def test_many_channels_are_last_in_float32():
    graph, given, exact = traced(MANY, torch.float32)
    assert_near(graph(*given), exact, 1e-5)
    images = [tensor.meta["val"] for arguments in convolutions(graph) for tensor in arguments[:2]]
    assert all(image.stride(1) == 1 for image in images)


@onednn
@pytest.mark.parametrize(
    ("channels", "images", "dtype"),
    [(FEW, LEAST_IMAGES, torch.float32), (MANY, 2, torch.float32), (MANY, LEAST_IMAGES, torch.float64)],
    ids=["few", "one-too-many", "float64"],
)
def test_channels_that_fill_no_vectors_and_float64_keep_their_order(channels: int, images: int, dtype: torch.dtype):
    graph, given, exact = traced(channels, dtype, images)
    assert_near(graph(*given), exact, 1e-5 if dtype is torch.float32 else 1e-12)
    states = [x.meta["val"] for x, *_ in convolutions(graph) if x.meta["val"].shape[1] >= channels]
    assert len(states) == 2
    assert all(state.is_contiguous() for state in states)


@onednn
def test_a_field_that_flattens_its_images():
    kernel, matrix = torch.randn(MANY, MANY, 3, 3), torch.randn(4 * MANY, 4 * MANY)
    images = torch.randn(3, MANY, 2, 2)

    def compute(states: Sequence[Tensor]) -> list[Tensor]:
        images, kernel, matrix = states
        convolved = torch.conv2d(images, kernel, padding=1)
        return [(convolved.flatten(1) @ matrix).view_as(images), convolved.view(-1)]

    graph = trace(compute, [[images, kernel, matrix]], fake_mode())
    assert convolutions(graph)[0][0].meta["val"].stride(1) == 1
    found = graph(images, kernel, matrix)
    torch.testing.assert_close(found, tuple(compute([images, kernel, matrix])), rtol=1e-4, atol=1e-3)


def test_a_field_that_counts_in_places_of_memory():
    images, kernel = torch.randn(3, MANY, 2, 2), torch.randn(MANY, MANY, 3, 3)

    def compute(states: Sequence[Tensor]) -> list[Tensor]:
        images, kernel = states
        return [torch.conv2d(torch.as_strided(images, images.shape, (4 * MANY, 4, 1, 2)), kernel, padding=1)]

    graph = trace(compute, [[images, kernel]], fake_mode())
    torch.testing.assert_close(graph(images, kernel), tuple(compute([images, kernel])))


@pytest.mark.parametrize("affine", [True, False], ids=["affine", "plain"])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_group_norm_and_its_gradient(groups: int, affine: bool):
    generator = torch.Generator().manual_seed(0)
    x, tangent = (torch.randn(3, 6, 4, 5, generator=generator) + 2 for _ in range(2))
    weight, bias = (torch.randn(6, generator=generator) if affine else None for _ in range(2))
    sizes, mask = (3, 6, 20, groups), [True, affine, affine]
    norm, back = aten.native_group_norm.default, aten.native_group_norm_backward.default
    found = CHANNELS_LAST[norm](x, weight, bias, *sizes, 1e-5)
    found += CHANNELS_LAST[back](tangent, x, *found[1:], weight, *sizes, mask)
    double = [None if part is None else part.double() for part in (x, weight, bias, tangent)]
    exact = norm(*double[:3], *sizes, 1e-5)
    exact += back(double[3], double[0], *exact[1:], double[1], *sizes, mask)
    for ours, right in zip(found, exact, strict=True):
        assert (ours is None) == (right is None)
        if ours is not None:
            assert float((ours.double() - right).norm()) < 1e-5 * float(right.norm())


@compiles
@onednn
@pytest.mark.slow
def test_machine_code_with_channels_last():
    graph, given, exact = traced(MANY, torch.float32)
    code = machine_code(graph, given, graph.graph.find_nodes(op="placeholder")[0].meta["val"].fake_mode, None)
    assert_near(code(list(given)), exact, 1e-5)
