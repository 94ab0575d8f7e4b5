"""Ensembles of classifiers: the mean of the members' probabilities, and how well they are calibrated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from node_runner.cli.arrays import Array
from node_runner.runs.saved import Saved
from node_runner.tasks.paths import path_batch
from node_runner.views import Series


AT_ONCE = 1000
"""Examples in one solve."""

BINS = 15
"""Bins of confidence, of equal width, for the calibration error; as many as in its source."""


@dataclass(frozen=True)
class Votes:
    """probabilities: (M, N, C) of every member; labels: (N,) true classes."""

    probabilities: Array
    labels: NDArray[np.int64]

    @property
    def mean(self) -> Array:
        """(N, C) over the members: the ensemble's probabilities."""
        mean: Array = self.probabilities.mean(axis=0)
        return mean


def vote(members: Sequence[Saved], name: str) -> Votes:
    """The probabilities that every member gives to the classes of the examples of part `name`."""
    part = members[0].experiment.splits[name]
    labels = part.labels if isinstance(part, Series) else part.y
    assert labels is not None
    return Votes(np.stack([probabilities(member, name) for member in members]), labels.cpu().numpy())


def probabilities(member: Saved, name: str) -> Array:
    """(N, C) of the classes of the examples of part `name`."""
    experiment = member.experiment
    part = experiment.splits[name]
    found = []
    with torch.no_grad(), experiment.tolerances.evaluation():
        for rows in part.rows().split(AT_ONCE):
            if isinstance(part, Series):
                batch = path_batch(part, rows)
                output = experiment.model(batch.ts, batch.values, batch.seen)
            else:
                output = experiment.model(part.x[rows])
            found.append(output.value.double().softmax(dim=1).cpu().numpy())
    return np.concatenate(found)


def score(votes: Votes) -> dict[str, Any]:
    """accuracy, nll (nats) and ece of the ensemble, and those of each member as NAME_members."""
    each = [_score(one, votes.labels) for one in votes.probabilities]
    own = _score(votes.mean, votes.labels)
    return {**own, **{f"{key}_members": [scores[key] for scores in each] for key in own}}


def _score(shares: Array, labels: NDArray[np.int64]) -> dict[str, float]:
    own = shares[np.arange(len(labels)), labels]
    return {
        "accuracy": float((shares.argmax(axis=1) == labels).mean()),
        "nll": float(-np.log(np.maximum(own, np.finfo(float).tiny)).mean()),
        "ece": calibration_error(shares, labels),
    }


def reliability(shares: Array, labels: NDArray[np.int64]) -> tuple[Array, Array, Array]:
    """Mean confidence, accuracy and number of the examples in each bin of confidence that has any."""
    confidence, right = shares.max(axis=1), shares.argmax(axis=1) == labels
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    counts = np.bincount(place, minlength=BINS)
    held = counts > 0
    sums = [np.bincount(place, weights, minlength=BINS)[held] / counts[held] for weights in (confidence, right)]
    return sums[0], sums[1], counts[held].astype(float)


def calibration_error(shares: Array, labels: NDArray[np.int64]) -> float:
    """Expected calibration error: |accuracy - confidence| by bin of confidence, mean over the examples.

    Source: Guo et al., On Calibration of Modern Neural Networks (2017), equation 3.
    """
    confidence, accuracy, counts = reliability(shares, labels)
    return float((np.abs(accuracy - confidence) * counts).sum() / counts.sum())
