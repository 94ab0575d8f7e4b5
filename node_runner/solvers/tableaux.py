"""Coefficients of the explicit Runge-Kutta methods that torchdiffeq has too.

Those of the adaptive methods are read from the installed torchdiffeq, so that an engine of ours takes the very
steps that torchdiffeq takes. Those of the fixed-step methods are written out, since torchdiffeq has them inside
its step functions; sources: Hairer, Norsett and Wanner, Solving ODEs I, 2nd ed., table II.1.1 (heun3, rk4).
"""

from __future__ import annotations

import functools

from node_runner.tableaux import TSIT5
from node_runner.types import Tableau


FIXED = {
    "euler": Tableau((0.0,), ((0.0,),), (1.0,)),
    "midpoint": Tableau((0.0, 1 / 2), ((0.0, 0.0), (1 / 2, 0.0)), (0.0, 1.0)),
    "heun2": Tableau((0.0, 1.0), ((0.0, 0.0), (1.0, 0.0)), (1 / 2, 1 / 2)),
    "heun3": Tableau((0.0, 1 / 3, 2 / 3), ((0.0, 0.0, 0.0), (1 / 3, 0.0, 0.0), (0.0, 2 / 3, 0.0)), (1 / 4, 0.0, 3 / 4)),
    "rk4": Tableau(
        (0.0, 1 / 3, 2 / 3, 1.0),
        ((0.0,) * 4, (1 / 3, 0.0, 0.0, 0.0), (-1 / 3, 1.0, 0.0, 0.0), (1.0, -1.0, 1.0, 0.0)),
        (1 / 8, 3 / 8, 3 / 8, 1 / 8),
    ),
}


@functools.cache
def adaptive_tableau(name: str) -> Tableau:
    """The tableau of an adaptive method."""
    if name == "tsit5":
        return TSIT5
    from torchdiffeq._impl.odeint import SOLVERS

    theirs = SOLVERS[name].tableau
    stages = len(theirs.alpha) + 1
    rows = [[0.0] * stages, *(beta.tolist() + [0.0] * (stages - len(beta)) for beta in theirs.beta)]
    return Tableau(
        c=(0.0, *theirs.alpha.tolist()),
        a=tuple(map(tuple, rows)),
        b=tuple(theirs.c_sol.tolist()),
        error=tuple(theirs.c_error.tolist()),
        middle=tuple(SOLVERS[name].mid.tolist()),
    )
