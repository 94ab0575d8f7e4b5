"""When the continuous adjoint costs more than the memory that it spares is worth: with many output times.

Its backward solve begins anew at each of them, with an initial step to find and steps that end there, whatever the
forward solve's steps are.
"""

from __future__ import annotations

from node_runner.types import CONTINUOUS


RATIO = 4.0
"""Evaluations backward for one forward from which it is said; 1 to 2 are usual between few output times."""


def advice(adjoint: str, forward: float | None, backward: float | None) -> str | None:
    """What to do about a run whose gradient takes many times the evaluations of its solve, or None.

    Args:
        adjoint: of the run.
        forward: evaluations of the field per optimiser step, nfe/forward.
        backward: those for the gradient, nfe/backward.
    """
    if adjoint not in CONTINUOUS or not forward or not backward or backward < RATIO * forward:
        return None
    return (
        f"nfe/backward is {backward / forward:.0f} times nfe/forward: adjoint={adjoint} solves backward anew from each "
        "output time; adjoint=off, or adjoint=checkpoint where memory is short, needs no second solve"
    )
