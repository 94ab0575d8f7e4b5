"""How well a score tells two samples apart."""

from __future__ import annotations

import numpy as np

from node_runner.cli.arrays import Array


CAUGHT = 0.95
"""Share of the foreign points that are to be found where false alarms are counted."""


def roc(own: Array, foreign: Array) -> tuple[Array, Array]:
    """Share of own (N,) and of foreign (M,) scores at or above each threshold, from above all of them down.

    The receiver operating characteristic of calling foreign what has a high score: false alarms, and what is caught.
    """
    thresholds = np.unique(np.concatenate((own, foreign)))[::-1]
    shares = [1 - np.searchsorted(np.sort(scores), thresholds, side="left") / len(scores) for scores in (own, foreign)]
    return np.concatenate(([0.0], shares[0])), np.concatenate(([0.0], shares[1]))


def area(own: Array, foreign: Array) -> float:
    """Area under that curve: the probability that a foreign point has a higher score than an own one.

    Ties count half (Hanley and McNeil, The meaning and use of the area under a ROC curve, 1982). 0.5 is chance.
    """
    alarms, caught = roc(own, foreign)
    return float(np.trapezoid(caught, alarms))


def false_alarms(own: Array, foreign: Array) -> float:
    """Share of own points that are called foreign where `CAUGHT` of the foreign ones are."""
    alarms, caught = roc(own, foreign)
    return float(alarms[np.argmax(caught >= CAUGHT)])
