"""Settings of a run that belong to no component, and the ranges that settings may be given.

Nothing here imports torch: the command line reads these classes to check what was typed.
Ranges are written on the annotation and checked by `check` before any work:

    rtol: Annotated[float, Above(0)] = 1e-4
"""

from __future__ import annotations

import dataclasses
import math
import typing
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any

from node_runner.errors import ConfigError


@dataclass(frozen=True)
class Above:
    """A number greater than `low`."""

    low: float

    def allows(self, value: float) -> bool:
        return value > self.low

    def __str__(self) -> str:
        return f"a number above {self.low:g}"


@dataclass(frozen=True)
class AtLeast:
    """A number not less than `low`."""

    low: float

    def allows(self, value: float) -> bool:
        return value >= self.low

    def __str__(self) -> str:
        return f"a number of at least {self.low:g}"


@dataclass(frozen=True)
class Between:
    """A number from `low` to `high`, both included."""

    low: float
    high: float

    def allows(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return f"a number from {self.low:g} to {self.high:g}"


Range = Above | AtLeast | Between

Positive = Annotated[float, Above(0)]
NonNegative = Annotated[float, AtLeast(0)]
Share = Annotated[float, Between(0, 1)]
Count = Annotated[int, AtLeast(1)]
CountOrZero = Annotated[int, AtLeast(0)]


class Activation(Enum):
    """Activations of a vector field. Smooth ones first: a kink makes an adaptive solver reject steps."""

    tanh = "tanh"
    softplus = "softplus"
    silu = "silu"
    gelu = "gelu"
    elu = "elu"
    sin = "sin"
    relu = "relu"


class Precision(Enum):
    """Floating point type of data, parameters and solves."""

    float32 = "float32"
    float64 = "float64"


class Place(Enum):
    """Where a run computes: `auto` takes a CUDA GPU if there is one."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class Interpolation(Enum):
    """How a fixed-step solver fills output times between its steps."""

    linear = "linear"
    cubic = "cubic"


class Batching(Enum):
    """Who shares a step size. shared: all samples of a batch. per_sample: none, each has steps of its own."""

    shared = "shared"
    per_sample = "per_sample"


class ScipySolver(Enum):
    """Integrators of scipy.integrate.solve_ivp."""

    LSODA = "LSODA"
    RK45 = "RK45"
    RK23 = "RK23"
    DOP853 = "DOP853"
    Radau = "Radau"
    BDF = "BDF"


class SpiralForm(Enum):
    """linear: dy/dt = A y. cubic: dy/dt = A y^3, as in torchdiffeq's ode_demo.py."""

    linear = "linear"
    cubic = "cubic"


class Encoder(Enum):
    """What stands before the ODE block of a classifier.

    auto: mlp for images under field=mlp or concatsquash, conv under field=conv, none for plain vectors.
    """

    auto = "auto"
    none = "none"
    mlp = "mlp"
    conv = "conv"


class Trace(Enum):
    """How a CNF computes the divergence of its field. auto: exact up to four dimensions."""

    auto = "auto"
    exact = "exact"
    hutchinson = "hutchinson"


class Noise(Enum):
    """Distribution of Hutchinson's probe vectors."""

    rademacher = "rademacher"
    gaussian = "gaussian"


class Velocity(Enum):
    """Where a second-order model has its velocities from.

    given: the second half of the state that is observed. learned: a network's guess from the positions.
    """

    given = "given"
    learned = "learned"


class ControlPath(Enum):
    """How a path is drawn through observations.

    hermite: cubic with backward differences, once differentiable and causal but for one interval. linear: straight.
    """

    hermite = "hermite"
    linear = "linear"


class Recognition(Enum):
    """What reads a series backwards to infer where it began: a GRU, or an ODE-RNN."""

    gru = "gru"
    ode_rnn = "ode_rnn"


class Pairing(Enum):
    """How flow matching pairs data with noise. optimal: the batch's shortest lines, which cross less."""

    independent = "independent"
    optimal = "optimal"


class Calculus(Enum):
    """How a stochastic integral is meant, and so which of the two drifts a method wants to be given."""

    ito = "ito"
    stratonovich = "stratonovich"


class GraphShape(Enum):
    """How the nodes of a graph are joined. random: to their nearest neighbours among random places in a square."""

    random = "random"
    grid = "grid"
    ring = "ring"


class Mixing(Enum):
    """What a node is told of its neighbours.

    laplacian: by how much it exceeds them in sum, (D - A) x. random_walk: their mean, D^-1 A x.
    gcn: D^-1/2 (A + I) D^-1/2 x, degrees with the added loop, as in Kipf and Welling (2017).
    """

    laplacian = "laplacian"
    random_walk = "random_walk"
    gcn = "gcn"


class Capture(Enum):
    """What a CUDA graph of several attempts at a step is made of: compiled code, operations as written, or none is."""

    off = "off"
    compiled = "compiled"
    eager = "eager"


class FirstStates(Enum):
    """Where trajectories begin in training: at their first observation, or at states that are learned beside it."""

    given = "given"
    learned = "learned"


@dataclass
class ToleranceConfig:
    """Error that the solver may make per step: |error| <= atol + rtol |y|, in the RMS norm over the state.

    Attributes:
        rtol, atol: of the forward solve while training.
        adjoint_rtol, adjoint_atol: of the backward solve of a continuous adjoint (null: as forward).
        eval_rtol, eval_atol: of validation, test and sampling (null: as forward).
        start_rtol, start_atol: where a schedule begins (null: no schedule). The tolerance then moves
            geometrically to rtol, atol over the first `schedule_share` of training.
        schedule_share: part of training after which rtol, atol are reached.
    """

    rtol: Positive = 1e-4
    atol: Positive = 1e-5
    adjoint_rtol: Positive | None = None
    adjoint_atol: Positive | None = None
    eval_rtol: Positive | None = None
    eval_atol: Positive | None = None
    start_rtol: Positive | None = None
    start_atol: Positive | None = None
    schedule_share: Share = 0.8


@dataclass
class DeviceConfig:
    """Where and in which precision a run computes.

    Attributes:
        place: auto, cpu, cuda or mps.
        precision: float32 or float64, of data, parameters and solves.
        threads: CPU threads of torch (null: torch's own choice). Small solves are fastest on one:
            `node-run doctor` measures it on your machine.
        tf32: let an NVIDIA GPU round the factors of float32 matrix products and convolutions to TF32's 11
            bits: faster, and to about three digits. (By default torch does so for convolutions.)
        deterministic: refuse operations that differ from run to run (bites on a GPU).
    """

    place: Place = Place.auto
    precision: Precision = Precision.float32
    threads: Count | None = 1
    tf32: bool = False
    deterministic: bool = False


@dataclass
class TrainerConfig:
    """The training loop.

    Attributes:
        steps: optimiser steps of the whole run (null: as many as `epochs` make).
        epochs: passes over the training set; the run ends at whichever of the two comes first.
        batch_size: trajectories, windows, images or points in a batch (null: the whole training set).
        eval_batch_size: as many at a time in evaluation.
        window: points in the trajectory segment that a sample is trained on (null: the whole
            trajectory; other data have no segments).
        window_start: length at which a curriculum begins (null: no curriculum); it grows to `window`
            over the first `curriculum_share` of training.
        curriculum_share: part of training after which the window has its full length.
        log_every: optimiser steps between two lines of metrics.
        eval_every: optimiser steps between two validations, each followed by a checkpoint.
        grad_clip: largest norm of the gradient (null: no clipping).
        patience: validations without a better val/loss before training stops (null: never).
        max_seconds: stop after this much training time (null: never).
        average: decay of the weights' moving average, which is what gets validated and kept as
            best (null: the weights themselves).
        input_noise: standard deviation of Gaussian noise on the inputs of training (first states, examples,
            points), as a share of the data's own (0: none).
        warm_start: first steps of training, in which the field is matched to the slopes of trajectories
            without a solve (0: none).
        conservation: weight of the drift of the data's conserved energy along predicted trajectories (0: none).
        residual: weight of the data's known equation, whose parameters are learned along, at points drawn about the
            data (0: none).
        shooting: points in a segment of multiple shooting, each segment with a first state that is learned
            (null: one solve from the first observation).
        continuity: weight of the gaps between such segments.
        field_weight_decay: of the field's parameters alone, apart from the gradient as in AdamW (0: none).
        first_states: of whole trajectories, in training: given by the observation, with its noise, or learned.
    """

    steps: Count | None = 1000
    epochs: Count | None = None
    batch_size: Count | None = 256
    eval_batch_size: Count = 1000
    window: Annotated[int, AtLeast(2)] | None = None
    window_start: Annotated[int, AtLeast(2)] | None = None
    curriculum_share: Share = 0.5
    log_every: Count = 20
    eval_every: Count = 100
    grad_clip: Positive | None = None
    patience: Count | None = None
    max_seconds: Positive | None = None
    average: Share | None = None
    input_noise: NonNegative = 0.0
    warm_start: CountOrZero = 0
    conservation: NonNegative = 0.0
    residual: NonNegative = 0.0
    shooting: Annotated[int, AtLeast(2)] | None = None
    continuity: NonNegative = 1.0
    field_weight_decay: NonNegative = 0.0
    first_states: FirstStates = FirstStates.given


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
            if isinstance(number, float) and math.isnan(number):
                raise ConfigError(f"{key}: expected a number, got nan")
            for allowed in ranges(hints[name]):
                if not allowed.allows(number):
                    raise ConfigError(f"{key}: expected {allowed}, got {number!r}")
        children = value.items() if isinstance(value, dict) else [(None, value)]
        for child_name, child in children:
            if dataclasses.is_dataclass(child) and not isinstance(child, type):
                check(child, f"{key}.{child_name}" if child_name else key)
