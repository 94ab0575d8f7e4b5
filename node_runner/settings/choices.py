"""Settings that are one of a few words."""

from __future__ import annotations

from enum import Enum


class FigureFormat(Enum):
    """Files that a figure is written as: an image, or drawings of lines and letters for a paper."""

    png = "png"
    pdf = "pdf"
    svg = "svg"


class Activation(Enum):
    """Activations of a vector field. Smooth ones first: a kink makes an adaptive solver reject steps."""

    tanh = "tanh"
    softplus = "softplus"
    silu = "silu"
    gelu = "gelu"
    elu = "elu"
    sin = "sin"
    relu = "relu"
    leaky_relu = "leaky_relu"
    sigmoid = "sigmoid"


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


class Pixels(Enum):
    """What a flow makes of grey levels before it begins.

    gaussianised: each pixel standard normal by its own histogram. whitened: those rotated to their principal
    components, each with deviation one. logit: as in FFJORD, then each pixel standardised.
    """

    gaussianised = "gaussianised"
    whitened = "whitened"
    logit = "logit"


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
