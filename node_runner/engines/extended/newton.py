"""The stage equations of an implicit Runge-Kutta step, solved by Newton's method and differentiated exactly.

k_i = f(t + c_i h, y + h sum_j a_ij k_j). The iteration keeps one Jacobian for all stages as long as it converges
fast, from one step to the next if it does (Hairer and Wanner, Solving ODEs II, 2nd ed., section IV.8), and takes
the Jacobian at each stage where it does not: then it is Newton's method itself. It goes on to rounding, so that
neither values nor gradients depend on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from node_runner.engines.extended.jacobian import Blocks, blocks_of
from node_runner.types import Tableau


Stage = Callable[[int, Tensor], Tensor]
"""(i, y) -> f at the i-th node of this step."""

SLOW = 0.1
"""A correction that is a larger share than this of the one before asks for new Jacobians."""


class NotConverged(Exception):
    """The iteration gave up. correction: the last one, relative to the state (NaN: it is not finite)."""

    def __init__(self, iterations: int, correction: float) -> None:
        super().__init__(f"{iterations} iterations, last correction {correction:.1e}")
        self.iterations = iterations
        self.correction = correction


class StageSolver:
    """Solves the stages of one step after the other.

    Args:
        tableau: of the method.
        hint: (G, m) positions of numbers that depend on one another, if they are known; see `blocks_of`.
        max_iters: iterations in a step.
    """

    def __init__(self, tableau: Tableau, hint: Tensor | None, max_iters: int) -> None:
        self.a = torch.tensor(tableau.a, dtype=torch.float64)
        self.explicit = [not any(row) for row in tableau.a]
        self.hint, self.max_iters = hint, max_iters
        self._blocks: list[Blocks] | None = None

    def stages(self, f: Stage, y0: Tensor, f0: Tensor, h: Tensor) -> Tensor:
        """The stages' slopes k (s, *shape), with their gradient if autograd is on.

        Args:
            f: the field at a node.
            y0: (*shape) state at the start of the step.
            f0: (*shape) slope there.
            h: () the step.

        Raises:
            NotConverged: too many iterations, a singular matrix, or numbers that are not finite.
            SolveFailed: see `blocks_of`.
        """
        return self.differentiated(f, y0, f0, h, self.solve(f, y0, f0, float(h.detach())))

    @torch.no_grad()
    def solve(self, f: Stage, y0: Tensor, f0: Tensor, step: float) -> Tensor:
        """The slopes that `stages` gives, without a gradient; it raises the same errors."""
        try:
            return self._iterate(f, y0, f0, step, self._near(y0, f0, step))
        except NotConverged:  # for one thing, the matrix of a long step may be singular just there
            self._blocks = None
            return self._iterate(f, y0, f0, step, f0.expand(len(self.a), *f0.shape))

    def differentiated(self, f: Stage, y0: Tensor, f0: Tensor, h: Tensor, k: Tensor) -> Tensor:
        """The slopes k (s, *shape) that `solve` found, with their gradient if autograd is on."""
        if not torch.is_grad_enabled() or not self._needs_gradient(f, y0, f0, h, k):
            return k
        step = float(h.detach())
        # The gradient by the implicit function theorem: k solves k - f(y + h a k) = 0 with the exact Jacobian.
        values, blocks = [], []
        for i, y in enumerate(self._states(y0, k, h)):
            value, block = self._evaluate(f, i, y, f0)
            values.append(value)
            blocks.append(block)
        factors = _Factors(self.a, step, blocks)
        k = _Implicit.apply(factors, k, k - torch.stack(values))
        if factors.index.numel() == y0.numel():
            return k
        # The rest of the state, which nothing depends on, follows from the stages.
        again = [f0 if self.explicit[i] else f(i, y) for i, y in enumerate(self._states(y0, k, h))]
        mask = torch.zeros(y0.numel(), dtype=torch.bool, device=y0.device)
        mask[factors.index] = True
        return torch.where(mask.view_as(y0), k, torch.stack(again))

    def _needs_gradient(self, f: Stage, y0: Tensor, f0: Tensor, h: Tensor, k: Tensor) -> bool:
        """Whether anything that the stages depend on does. A field may use its parameters at some of the nodes only."""
        if any(x.requires_grad for x in (y0, f0, h)):
            return True
        return any(f(i, y).requires_grad for i, y in enumerate(self._states(y0, k, h)) if not self.explicit[i])

    def _near(self, y0: Tensor, f0: Tensor, h: float) -> Tensor:
        """Where to begin: at zero, or at what the Jacobian of the step before makes of the slope at the start."""
        k = torch.zeros(len(self.a), *y0.shape, dtype=y0.dtype, device=y0.device)
        return k if self._blocks is None else _Factors(self.a, h, self._blocks).correction(f0.expand_as(k))

    def _iterate(self, f: Stage, y0: Tensor, f0: Tensor, h: float, start: Tensor) -> Tensor:
        eps = torch.finfo(y0.dtype).eps
        k = start.clone()
        for i, explicit in enumerate(self.explicit):
            if explicit:
                k[i] = f0
        fresh, before = self._blocks is None, None
        factors = None if self._blocks is None else _Factors(self.a, h, self._blocks)
        correction = float("nan")
        for _ in range(self.max_iters):
            states = self._states(y0, k, h)
            if fresh:
                with torch.enable_grad():
                    pairs = [self._evaluate(f, i, y.detach(), f0) for i, y in enumerate(states)]
                slopes = torch.stack([value.detach() for value, _ in pairs])
                self._blocks = [block for _, block in pairs]
                factors = _Factors(self.a, h, self._blocks)
            else:
                slopes = torch.stack([f0 if self.explicit[i] else f(i, y) for i, y in enumerate(states)])
            assert factors is not None
            change = factors.correction(k - slopes)
            k = k - change
            if change.numel() == 0:
                return k
            size = abs(h) * float(change.abs().max())
            scale = max(float(y0.abs().max()), abs(h) * float(k.abs().max()))
            correction = size / scale if scale else size
            if not size < float("inf"):
                break
            at_rounding = before is not None and size > before / 2 and size <= eps**0.5 * scale
            if size <= eps**0.75 * scale or (fresh and at_rounding):
                return k
            fresh = before is not None and size > SLOW * before
            before = size
        raise NotConverged(self.max_iters, correction)

    def _states(self, y0: Tensor, k: Tensor, h: Tensor | float) -> list[Tensor]:
        """The state at each node."""
        a = self.a.to(k)
        return list(y0 + h * torch.einsum("ij,j...->i...", a, k))

    def _evaluate(self, f: Stage, i: int, y: Tensor, f0: Tensor) -> tuple[Tensor, Blocks]:
        """The slope at a node and its Jacobian there. At the start no slope enters, so that any Jacobian will do."""
        if self.explicit[i] and self._blocks is not None:
            return f0, self._blocks[-1]
        y = y if y.requires_grad else y.requires_grad_()
        value = f(i, y)
        return value, blocks_of(value, y, self.hint)


class _Factors:
    """The matrices I - h a_ij J_i of all stages together, one for each block of the Jacobian, factored."""

    def __init__(self, a: Tensor, h: float, blocks: list[Blocks]) -> None:
        self.index = blocks[-1].numbers
        if any(not torch.equal(block.numbers, self.index) for block in blocks):  # as where units of a relu are dead
            self.index = torch.cat([block.numbers.reshape(-1) for block in blocks]).unique().view(1, -1)
            blocks = [_widened(block, self.index) for block in blocks]
        self.stages = len(a)
        groups, size = self.index.shape
        jacobians = torch.stack([block.values for block in blocks], dim=1)  # (G, s, m, m)
        product = h * torch.einsum("ij,gimn->gimjn", a.to(jacobians), jacobians)
        full = self.stages * size
        matrix = torch.eye(full, dtype=product.dtype, device=product.device) - product.reshape(groups, full, full)
        self.lu, self.pivots, _ = torch.linalg.lu_factor_ex(matrix)

    def correction(self, residual: Tensor, transposed: bool = False) -> Tensor:
        """The matrix's inverse times a residual (s, *shape); numbers that nothing depends on stay as they are."""
        flat = residual.reshape(self.stages, -1)
        inside = flat[:, self.index].permute(1, 0, 2).reshape(len(self.index), -1, 1)  # (G, s m, 1)
        solved = torch.linalg.lu_solve(self.lu, self.pivots, inside, adjoint=transposed)
        out = flat.clone()
        out[:, self.index] = solved.view(len(self.index), self.stages, -1).permute(1, 0, 2)
        return out.view_as(residual)


def _widened(block: Blocks, index: Tensor) -> Blocks:
    """The same Jacobian as one block over more numbers (1, m)."""
    place = torch.searchsorted(index[0].contiguous(), block.numbers)  # (G, n)
    values = block.values.new_zeros(1, index.shape[1], index.shape[1])
    values[0, place[:, :, None], place[:, None, :]] = block.values
    return Blocks(index, values)


class _Implicit(torch.autograd.Function):
    """(factors, solution k, residual) -> k, whose derivative by the residual is minus the matrix's inverse."""

    @staticmethod
    def forward(ctx: Any, factors: _Factors, k: Tensor, residual: Tensor) -> Tensor:
        ctx.factors = factors
        return k.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, Tensor]:
        if torch.is_grad_enabled():  # the factors are constants here, so that a second derivative would be wrong
            raise RuntimeError("an implicit method has first derivatives only: create_graph=True is not to be had")
        return None, None, -ctx.factors.correction(grad, transposed=True)
