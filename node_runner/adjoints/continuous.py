"""adjoint=on and adjoint=seminorm: the gradient by a second solve, backward in time.

Source: Chen, Rubanova, Bettencourt, Duvenaud, Neural Ordinary Differential Equations (2018),
algorithm 1 and appendix B; the seminorm is Kidger, Chen, Lyons, "Hey, that's not an ODE" (2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from node_runner.adjoints import ADJOINTS
from node_runner.errors import ConfigError, SolveFailed
from node_runner.types import Dynamics, Integrate, Method, Norm, Solution, SolveStats


@ADJOINTS.register("on", "continuous adjoint: a second solve backward in time, memory independent of the steps",
                   seminorm=False)  # fmt: skip
@ADJOINTS.register("seminorm", "continuous adjoint whose step size ignores the parameters' gradient: fewer steps",
                   seminorm=True)  # fmt: skip
class ContinuousAdjoint:
    """Optimise, then discretise.

    The gradient is that of the exact flow, up to the adjoint tolerance: it differs from the
    gradient of the computed numbers. Only the states at the output times are kept.

    Values, gradients and step counts are those of torchdiffeq's odeint_adjoint. Like that, it integrates
    the gradient of the time too, though nobody asks for it, and lets its error steer the step where the
    field depends on time: leaving it out would take other steps.
    """

    def __init__(self, *, seminorm: bool) -> None:
        self.seminorm = seminorm
        self.name = "seminorm" if seminorm else "on"

    def unsupported(self, method: Method) -> str | None:
        """Any method can be run backward; a seminorm needs one that chooses its steps."""
        if self.seminorm and (not method.adaptive or method.name == "scipy_solver"):
            return (
                f"adjoint=seminorm is a way to choose step sizes, and solver={method.name} does not ask: use adjoint=on"
            )
        return None

    def wrap(self, forward: Integrate, backward: Integrate) -> Integrate:
        """A solve whose gradient comes from `backward`."""

        def integrate(f: Dynamics, y0: Tensor, ts: Tensor, *, norm: Norm | None = None) -> Solution:
            if not torch.is_grad_enabled():
                return forward(f, y0, ts, norm=norm)
            if not isinstance(f, nn.Module):
                raise ConfigError(f"adjoint={self.name} needs the vector field to be an nn.Module, whose parameters "
                                  f"it can find; got {type(f).__name__}")  # fmt: skip
            if ts.requires_grad:
                raise ConfigError(f"adjoint={self.name} gives no gradient for the output times: use adjoint=off")
            parameters = tuple(p for p in f.parameters() if p.requires_grad)
            call = _Call(f, forward, backward, norm or rms_norm, self.seminorm)
            ys = _Adjoint.apply(call, y0, ts, *parameters)
            return Solution(ts, ys, call.stats)

        return integrate


def rms_norm(x: Tensor) -> Tensor:
    """Root mean square of all elements, ()."""
    return x.abs().pow(2).mean().sqrt()


class _Call:
    """One differentiable solve: what its backward pass needs beyond tensors, and its statistics."""

    def __init__(self, f: nn.Module, forward: Integrate, backward: Integrate, norm: Norm, seminorm: bool) -> None:
        self.f = f
        self.forward = forward
        self.backward = backward
        self.norm = norm
        self.seminorm = seminorm
        self.stats = SolveStats()


class _Adjoint(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: _Call, y0: Tensor, ts: Tensor, *parameters: Tensor) -> Tensor:
        solution = call.forward(call.f, y0, ts, norm=call.norm)
        call.stats = solution.stats
        ctx.call = call
        ctx.save_for_backward(ts, solution.ys, *parameters)
        return solution.ys

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_ys: Tensor) -> tuple[Tensor | None, ...]:
        """Solve the adjoint backward in time, from each output to the one before it."""
        call: _Call = ctx.call
        ts, ys, *parameters = ctx.saved_tensors
        augmented = _Augmented(call, ys[0], parameters)
        adjoint = grad_ys[-1]
        gradients = torch.zeros(sum(p.numel() for p in parameters), dtype=ys.dtype, device=ys.device)
        time = gradients.new_zeros(1)
        for i in range(len(ts) - 1, 0, -1):
            # Restart from the forward solve's own state at each output time, as torchdiffeq does:
            # errors of the backward reconstruction do not build up across intervals.
            state = torch.cat((time, ys[i].reshape(-1), adjoint.reshape(-1), gradients))
            try:
                solution = call.backward(augmented, state, ts[i - 1 : i + 1].flip(0), norm=augmented.norm)
            except SolveFailed as error:
                raise SolveFailed(f"in the backward solve of the adjoint: {error}") from error
            call.stats.add_backward(solution.stats)
            time, _, adjoint, gradients = augmented.split(solution.ys[-1])
            adjoint = adjoint + grad_ys[i - 1]
        shaped = [part.view_as(p) for part, p in zip(augmented.parts(gradients), parameters, strict=True)]
        return (None, adjoint if ctx.needs_input_grad[1] else None, None, *shaped)


class _Augmented:
    """d/dt of (time's gradient, y, adjoint, parameters' gradient), flattened into one vector.

    da/dt = -a^T df/dy, dg/dt = -a^T df/dtheta, and -a^T df/dt for the time (appendix B of Chen et al.).
    Implicit methods differentiate it in their turn.
    """

    def __init__(self, call: _Call, y: Tensor, parameters: Sequence[Tensor]) -> None:
        self.call = call
        self.shape = y.shape
        self.numel = y.numel()
        self.device = y.device
        self.parameters = tuple(parameters)
        self.sizes = [p.numel() for p in parameters]

    @property
    def samples(self) -> Tensor:
        """(B, 2n) positions of each sample's y and adjoint in the flat state, from which implicit methods guess which
        numbers depend on one another.
        """
        rows = self.shape[0] if len(self.shape) > 1 else 1
        y = 1 + torch.arange(self.numel, device=self.device).view(rows, -1)
        return torch.cat((y, y + self.numel), dim=1)

    def split(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        time, y, adjoint, gradients = state.split((1, self.numel, self.numel, len(state) - 2 * self.numel - 1))
        return time, y.view(self.shape), adjoint.view(self.shape), gradients

    def parts(self, gradients: Tensor) -> tuple[Tensor, ...]:
        """The gradient of each parameter, flat."""
        return gradients.split(self.sizes)

    def __call__(self, t: Tensor, state: Tensor) -> Tensor:
        _, y, adjoint, _ = self.split(state)
        differentiable = torch.is_grad_enabled() and state.requires_grad
        with torch.enable_grad():
            if not differentiable:
                y = y.detach().requires_grad_(True)
            t = t.detach().requires_grad_(True)
            dy = self.call.f(t, y)
            inputs = (t, y, *self.parameters)
            pulled = torch.autograd.grad(dy, inputs, -adjoint, allow_unused=True, create_graph=differentiable)
        time, *rest = (
            torch.zeros_like(x).reshape(-1) if g is None else g.reshape(-1) for g, x in zip(pulled, inputs, strict=True)
        )
        return torch.cat((time, (dy if differentiable else dy.detach()).reshape(-1), *rest))

    def norm(self, error: Tensor) -> Tensor:
        """Largest of the norms of the parts; a seminorm leaves the parameters' part out."""
        time, y, adjoint, gradients = self.split(error)
        norms = [time.abs().squeeze(), self.call.norm(y), self.call.norm(adjoint)]
        if not self.call.seminorm:
            norms += [rms_norm(part) for part in self.parts(gradients)]
        return max(norms)
