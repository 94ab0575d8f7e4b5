"""The groups of settings that belong to no component."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from node_runner.settings.choices import FirstStates, Place, Precision
from node_runner.settings.ranges import AtLeast, Between, Count, CountOrZero, NonNegative, Positive, Relative, Share


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

    rtol: Relative = 1e-4
    atol: Positive = 1e-5
    adjoint_rtol: Relative | None = None
    adjoint_atol: Positive | None = None
    eval_rtol: Relative | None = None
    eval_atol: Positive | None = None
    start_rtol: Relative | None = None
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
    threads: Annotated[int, Between(1, 1024)] | None = 1
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
        warm_start: first steps of training, in which the field is matched without a solve: to the slopes of
            trajectories, or for a density of points to straight lines as in flow matching (0: none).
        conservation: weight of the drift of the data's conserved energy along predicted trajectories (0: none).
        residual: weight of the data's known equation, whose parameters are learned along, at points drawn about the
            data (0: none).
        shooting: points in a segment of multiple shooting, each segment with a first state that is learned
            (null: one solve from the first observation).
        continuity: weight of the gaps between such segments.
        field_weight_decay: of the field's parameters alone, apart from the gradient as in AdamW (0: none).
        first_states: of whole trajectories, in training: given by the observation, with its noise, or learned.
        check_solver: measure the validation part once more at the end, solved accurately, and say where the model is
            another then.
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
    check_solver: bool = True
