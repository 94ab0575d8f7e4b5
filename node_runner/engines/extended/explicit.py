"""An explicit Runge-Kutta pair for torchdiffeq's adaptive loop."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from node_runner.types import Tableau


def make_solver(name: str, order: int, method: Tableau, common: ModuleType) -> type:
    """A solver class for torchdiffeq's table.

    Args:
        name: of the method.
        order: of convergence.
        method: with an error estimate and weights at the middle of a step.
        common: torchdiffeq's module rk_common.
    """
    stages = [numbers[:i] for i, numbers in enumerate(method.a)]
    coefficients = butcher(common, method.c[1:], stages[1:], method)
    own = {"order": order, "tableau": coefficients, "mid": row(method.middle)}
    return type(name, (common.RKAdaptiveStepsizeODESolver,), own)


def butcher(common: ModuleType, c: Sequence[float], a: Sequence[Sequence[float]], method: Tableau) -> Any:
    """A method's coefficients as torchdiffeq holds them, with the nodes `c` and the rows `a` of its stages."""
    return common._ButcherTableau(alpha=row(c), beta=list(map(row, a)), c_sol=row(method.b), c_error=row(method.error))


def row(numbers: Sequence[float]) -> Tensor:
    """Coefficients in float64."""
    return torch.tensor(numbers, dtype=torch.float64)
