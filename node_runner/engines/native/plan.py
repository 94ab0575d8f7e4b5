"""The network that a field is, and the library that was written for it."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from node_runner import memory
from node_runner.engines.native.build import build
from node_runner.engines.native.calls import Call
from node_runner.forms import FieldForm, Integral, between
from node_runner.settings import Activation
from node_runner.types import Norm


class Network(NamedTuple):
    """What the source is compiled for.

    sizes: D, hidden widths, and D or, where velocities move positions, less. biased: whether each layer has a bias.
    activations: after each layer (None: nothing). slope: of the leaky ones below 0. time_input: whether the time is
    seen, time_first: before the state or after it. power: of the state, that is seen. scaled: whether a
    number is multiplied by what the layers give; along: whether a multiple of the state is added to that. Both numbers
    are given with each solve.
    probes: directions in which tangents are carried (0: none).
    integrals: what is integrated beside the state, in order. norm_rows: of the state, that steer the step size.
    vector: bytes of a vector. width: vectors that are computed at a time. units: whether its lanes are the units of a
    layer, and not samples.
    per_sample: whether each sample has adaptive steps of its own. gradient: which is compiled, by `GRADIENTS`.
    """

    sizes: tuple[int, ...]
    biased: tuple[bool, ...]
    activations: tuple[str | None, ...]
    slope: float
    time_input: bool
    time_first: bool
    power: int
    scaled: bool
    along: bool
    gated: bool
    probes: int
    integrals: tuple[str, ...]
    norm_rows: int
    dtype: torch.dtype
    vector: int
    width: int
    units: bool
    per_sample: bool
    gradient: int

    @property
    def about(self) -> str:
        """In words."""
        kinds = "-".join(dict.fromkeys(kind for kind in self.activations if kind is not None)) or "linear"
        words = f"{'gated ' if self.gated else ''}mlp {'-'.join(map(str, self.sizes))} {kinds}"
        if self.activations[-1] is not None:
            words += f", {self.activations[-1]} at the end"
        if not all(self.biased):
            words += " without some biases"
        if self.power > 1:
            words += f" of y^{self.power}"
        if self.scaled:
            words += ", times a number"
        if self.along:
            words += ", plus a multiple of y"
        if self.time_input:
            words += " with time before the state" if self.time_first else " with time"
        if self.integrals:
            words += f", with {' and '.join(self.integrals)}"
        if self.probes:
            words += f" by {self.probes} probe{'s' * (self.probes > 1)}"
        gradient = ("without gradient", "with gradient", "with continuous adjoint")[self.gradient]
        at_once = 1 if self.units else self.width * self.vector // self.dtype.itemsize
        dtype = str(self.dtype).removeprefix("torch.")
        own = " by steps of their own" if self.per_sample else ""
        return f"{words}, {dtype}, {at_once} sample{'s' * (at_once > 1)} at once{own}, {gradient}"


GRADIENTS = {None: 0, "off": 1, "checkpoint": 1, "on": 2, "seminorm": 2}
"""What NODE_GRADIENT is for each adjoint: none, discrete, continuous."""


def network_of(
    form: FieldForm, y0: Tensor, norm: Norm | None, adjoint: str | None, *, per_sample: bool = False
) -> Network:
    """The network of a form, for a batch of states (B, D + integrals), and a gradient (None: none is wanted)."""
    layers = form.layers
    sizes = (layers[0].weight.shape[1] - form.time_input, *(layer.weight.shape[0] for layer in layers))
    tangents = {Integral.divergence, Integral.jacobian} & set(form.integrals)
    probes = 0 if not tangents else sizes[0] if form.noise is None else 1
    integrals = tuple(integral.value for integral in form.integrals)
    norm_rows = y0.shape[1] if norm is None else norm.columns  # type: ignore[attr-defined]
    gated = layers[0].gate_weight is not None
    activations = tuple(None if kind is None else kind.value for kind in form.activations)
    slope = form.slope if Activation.leaky_relu in form.activations else 0.0
    return Network(
        sizes, tuple(layer.bias is not None for layer in layers), activations, slope, form.time_input,
        form.time_first, form.power, form.scale != 1.0, form.along != 0.0, gated, probes, integrals, norm_rows,
        y0.dtype, *tile(form, y0, per_sample=per_sample), per_sample, GRADIENTS[adjoint],
    )  # fmt: skip


UNITS_A_SAMPLE = 8
"""Units of the widest layer for each sample of a batch, from which the lanes of a vector are units.

Time of a training step with samples in the lanes, over that with units (rk4, 20 steps, tanh; one thread of a busy
two-core AMD EPYC, smallest of 9 rounds in CPU seconds), by the samples of a batch:

| field | 1 | 2 | 4 | 8 | 12 | 16 |
|---|---|---|---|---|---|---|
| 2-8-2, float32 | 1.02 | 0.99 | 0.92 | 0.81 | 0.74 | 0.67 |
| 2-32-2, float32 | 1.16 | 1.14 | 1.07 | 0.90 | 0.91 | 0.79 |
| 2-64-64-2, float32 | 2.44 | 2.14 | 1.69 | 1.46 | 1.30 | 0.93 |
| 2-256-2, float32 | 2.64 | 2.33 | 1.99 | 1.47 | 2.21 | 1.42 |
| 2-32-2, float64 | 1.21 | 1.20 | 1.03 | 0.99 | 1.13 | 0.98 |
| 2-64-64-2, float64 | 2.16 | 1.71 | 1.36 | 1.05 | 1.37 | 1.00 |
"""


def tile(form: FieldForm, y0: Tensor, *, per_sample: bool = False) -> tuple[int, int, bool]:
    """(bytes of a vector, vectors in a row of a tile, whether lanes are units) for a batch of a field's states.

    Empty lanes cost as much as full ones. Samples with steps of their own are solved in one vector, whose lanes are
    filled again and again. Lanes are units where all hidden layers end in one activation, no layer is without a bias,
    and the time is not first.
    """
    widest = max(len(layer.weight) for layer in form.layers)
    usual = form.activations[0] is not None and form.activations == between(form.layers, form.activations[0])
    usual = usual and not form.time_first and all(layer.bias is not None for layer in form.layers)
    plain = usual and form.layers[0].gate_weight is None and not form.integrals and form.moved is None
    if plain and not per_sample and len(y0) * UNITS_A_SAMPLE <= widest and len(y0) < 16:
        return 64, 1, True
    size = len(y0) * y0.element_size()
    vector = 16 if size <= 16 else 32 if size <= 32 else 64
    return vector, 4 if size > 2 * vector and not per_sample else 1, False


class Library(NamedTuple):
    """The compiled source of one network. parameters: numbers in all its tensors."""

    handle: ctypes.CDLL
    parameters: int
    seconds: float


@functools.cache
def library(network: Network) -> Library:
    """Compile, or find, the library of a network."""
    defines = {
        "NODE_REAL": "float" if network.dtype is torch.float32 else "double",
        "NODE_SIZES": _list(network.sizes),
        "NODE_BIASED": _list(map(int, network.biased)),
        "NODE_ACTIVATIONS": _list((kind or "none").upper() for kind in network.activations),
        "NODE_SLOPE": repr(network.slope),
        "NODE_TIMED": str(int(network.time_input)),
        "NODE_TIME_FIRST": str(int(network.time_first)),
        "NODE_POWER": str(network.power),
        "NODE_SCALED": str(int(network.scaled)),
        "NODE_ALONG": str(int(network.along)),
        "NODE_GATED": str(int(network.gated)),
        "NODE_PROBES": str(network.probes),
        "NODE_INTEGRALS": _list([*(name.upper() for name in network.integrals), "-1"]),
        "NODE_NORM_ROWS": str(network.norm_rows),
        "NODE_BYTES": str(network.vector),
        "NODE_WIDTH": str(network.width),
        "NODE_UNITS": str(int(network.units)),
        "NODE_PER_SAMPLE": str(int(network.per_sample)),
        "NODE_GRADIENT": str(network.gradient),
    }
    handle, seconds = build(defines, network.about)
    for name in ("node_parameters", "node_call_size"):
        getattr(handle, name).restype = ctypes.c_int64
    handle.node_forward.restype = ctypes.c_void_p
    handle.node_forward.argtypes = [ctypes.c_void_p]
    handle.node_backward.restype = None
    handle.node_backward.argtypes = [ctypes.c_void_p] * 5
    handle.node_forget.restype = None
    memory.KEPT.append(handle.node_forget)
    handle.node_release.restype = None
    handle.node_release.argtypes = [ctypes.c_void_p]
    assert handle.node_call_size() == ctypes.sizeof(Call), "calls.py and source/call.h differ"
    return Library(handle, handle.node_parameters(), seconds)


def _list(values: Iterable[object]) -> str:
    """As C++ writes it."""
    return "{" + ",".join(map(str, values)) + "}"


@dataclass(frozen=True)
class Making:
    """The making of a library, as work to be done before a run."""

    network: Network

    def __call__(self) -> Library:
        """Compile, or find."""
        return library(self.network)
