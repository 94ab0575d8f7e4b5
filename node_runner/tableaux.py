"""Coefficients of the Runge-Kutta methods that are ours: tsit5 and the implicit ones.

Sources: Tsitouras, Runge-Kutta pairs of order 5(4) satisfying only the first column simplifying assumption, Computers
and Mathematics with Applications 62 (2011) (tsit5, its interpolant too); Hairer and Wanner, Solving ODEs II, 2nd ed.,
sections IV.5 (Gauss, Radau IIA), IV.6 (sdirk2) and IV.8 (the error estimate of radau5); Hosea and Shampine, Analysis
and implementation of TR-BDF2, Applied Numerical Mathematics 20 (1996) (trbdf2).
"""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

from node_runner.types import Tableau


def _tsit5() -> Tableau:
    """Tsitouras 5(4): the first column of a row is what its node leaves over, as the paper gives it."""
    c = (0.0, 0.161, 0.327, 0.9, 0.9800255409045097, 1.0, 1.0)
    rest = (
        (),
        (0.335480655492357,),
        (-6.359448489975075, 4.362295432869581),
        (-11.74888356406283, 7.495539342889836, -0.09249506636175525),
        (-12.92096931784711, 8.159367898576159, -0.0715849732814010, -0.02826905039406838),
        (0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081, 2.324710524099774),
    )
    rows: list[tuple[float, ...]] = [(0.0,) * 7]
    for node, row in zip(c[1:], rest, strict=True):
        rows.append((node - sum(row), *row, *(0.0,) * (6 - len(row))))
    # The solution's weights less those of the embedded one, with the sign of torchdiffeq's pairs: theirs less ours.
    error = (
        -0.001780011052226, -0.000816434459657, 0.007880878010262, -0.144711007173263, 0.582357165452555,
        -0.458082105929187, 1 / 66,
    )  # fmt: skip
    x = 0.5  # where the interpolant of the paper's section 5 is taken
    middle = (
        -1.0530884977290216 * x * (x - 1.3299890189751412) * (x**2 - 1.4364028541716351 * x + 0.7139816917074209),
        0.1017 * x**2 * (x**2 - 2.1966568338249754 * x + 1.2949852507374631),
        2.490627285651252793 * x**2 * (x**2 - 2.38535645472061657 * x + 1.57803468208092486),
        -16.54810288924490272 * x**2 * (x - 1.21712927295533244) * (x - 0.61620406037800089),
        47.37952196281928122 * x**2 * (x - 1.203071208372362603) * (x - 0.658047292653547382),
        -34.87065786149660974 * x**2 * (x - 1.2) * (x - 2 / 3),
        2.5 * x**2 * (x - 1) * (x - 0.6),
    )
    return Tableau(c, tuple(rows), rows[-1], error, middle)


TSIT5 = _tsit5()

_R2, _R3, _R6, _R15 = sqrt(2), sqrt(3), sqrt(6), sqrt(15)
_GAMMA = 1 - _R2 / 2

IMPLICIT = {
    "implicit_euler": Tableau((1.0,), ((1.0,),), (1.0,)),
    "implicit_midpoint": Tableau((1 / 2,), ((1 / 2,),), (1.0,)),
    "trapezoid": Tableau((0.0, 1.0), ((0.0, 0.0), (1 / 2, 1 / 2)), (1 / 2, 1 / 2)),
    "radauIIA3": Tableau((1 / 3, 1.0), ((5 / 12, -1 / 12), (3 / 4, 1 / 4)), (3 / 4, 1 / 4)),
    "radauIIA5": Tableau(
        ((4 - _R6) / 10, (4 + _R6) / 10, 1.0),
        (
            ((88 - 7 * _R6) / 360, (296 - 169 * _R6) / 1800, (-2 + 3 * _R6) / 225),
            ((296 + 169 * _R6) / 1800, (88 + 7 * _R6) / 360, (-2 - 3 * _R6) / 225),
            ((16 - _R6) / 36, (16 + _R6) / 36, 1 / 9),
        ),
        ((16 - _R6) / 36, (16 + _R6) / 36, 1 / 9),
    ),
    # torchdiffeq has the first node twice, which costs fields that depend on time their order.
    "gl4": Tableau(
        (1 / 2 - _R3 / 6, 1 / 2 + _R3 / 6),
        ((1 / 4, 1 / 4 - _R3 / 6), (1 / 4 + _R3 / 6, 1 / 4)),
        (1 / 2, 1 / 2),
    ),
    "gl6": Tableau(
        (1 / 2 - _R15 / 10, 1 / 2, 1 / 2 + _R15 / 10),
        (
            (5 / 36, 2 / 9 - _R15 / 15, 5 / 36 - _R15 / 30),
            (5 / 36 + _R15 / 24, 2 / 9, 5 / 36 - _R15 / 24),
            (5 / 36 + _R15 / 30, 2 / 9 + _R15 / 15, 5 / 36),
        ),
        (5 / 18, 4 / 9, 5 / 18),
    ),
    "sdirk2": Tableau((_GAMMA, 1.0), ((_GAMMA, 0.0), (1 - _GAMMA, _GAMMA)), (1 - _GAMMA, _GAMMA)),
    "trbdf2": Tableau(
        (0.0, 2 * _GAMMA, 1.0),
        ((0.0, 0.0, 0.0), (_GAMMA, _GAMMA, 0.0), (_R2 / 4, _R2 / 4, _GAMMA)),
        (_R2 / 4, _R2 / 4, _GAMMA),
    ),
}


def _radau5() -> Tableau:
    """Radau IIA of three stages with the error estimate of Hairer and Wanner's code RADAU5, of order 3.

    It is gamma (h f(y0) + d_1 z_1 + d_2 z_2 + d_3 z_3), with gamma the real eigenvalue of the matrix a and z_i the
    change of the state up to the i-th node, z_i = h sum_j a_ij k_j.
    """
    base = IMPLICIT["radauIIA5"]
    gamma = 1 / (3 + 3 ** (2 / 3) - 3 ** (1 / 3))
    d = ((-13 - 7 * _R6) / 3, (-13 + 7 * _R6) / 3, -1 / 3)
    return replace(base, error=tuple(gamma * sum(d[i] * base.a[i][j] for i in range(3)) for j in range(3)))


IMPLICIT["radau5"] = _radau5()
