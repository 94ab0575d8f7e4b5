"""Training loops written out by hand, with PyTorch and torchdiffeq alone: what bench_overhead.py measures against.

Nothing is counted and nothing is logged. The models are those of the runner, with the same weights.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchdiffeq import odeint, odeint_adjoint

from node_runner.assemble import Experiment
from node_runner.views import View


class Perceptron(nn.Module):
    """f(t, y) of a multilayer perceptron that does not see the time."""

    def __init__(self, dim: int, width: int, depth: int, activation: type[nn.Module]) -> None:
        super().__init__()
        sizes = [dim, *[width] * depth]
        hidden: list[nn.Module] = []
        for n, m in itertools.pairwise(sizes):
            hidden += [nn.Linear(n, m), activation()]
        self.layers = nn.Sequential(*hidden, nn.Linear(sizes[-1], dim))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.layers(y)


class Squash(nn.Module):
    """(W x + b) * sigmoid(g t + c) + h t."""

    def __init__(self, n: int, m: int) -> None:
        super().__init__()
        self.linear = nn.Linear(n, m)
        self.gate = nn.Linear(1, m)
        self.shift = nn.Linear(1, m, bias=False)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return self.linear(x) * torch.sigmoid(self.gate(t)) + self.shift(t)


class Flow(nn.Module):
    """The field of a flow in the plane and minus its divergence, as in torchdiffeq's examples/cnf.py."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.hidden = nn.ModuleList(Squash(n, m) for n, m in itertools.pairwise([2, *[width] * depth]))
        self.last = Squash(width, 2)

    def forward(self, t: Tensor, state: Tensor) -> Tensor:
        """t: (), state: points and log-density (B, 3) -> their slopes (B, 3)."""
        with torch.enable_grad():
            z = state[:, :2]
            if not z.requires_grad:
                z.requires_grad_(True)
            time = t.reshape(1, 1)
            dz = z
            for layer in self.hidden:
                dz = torch.tanh(layer(time, dz))
            dz = self.last(time, dz)
            trace = z.new_zeros(len(z))
            for i in range(2):
                trace = trace + torch.autograd.grad(dz[:, i].sum(), z, create_graph=True)[0][:, i]
            return torch.cat((dz, trace.unsqueeze(1)), dim=1)


class Classifier(nn.Module):
    """Encoder, field, head."""

    def __init__(self, pixels: int, hidden: int, state: int, classes: int, field: nn.Module) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(pixels, hidden), nn.ReLU(), nn.Linear(hidden, state))
        self.field = field
        self.head = nn.Linear(state, classes)


@dataclass
class Bare:
    """A model without the runner.

    Attributes:
        module: with all parameters.
        field: the part of it that is integrated; the counting round puts a counter around it.
        loss: of one batch.
    """

    module: nn.Module
    field: nn.Module
    loss: Callable[[Bare, Any], Tensor]


def bare_loop(
    bare: Bare,
    batches: Sequence[Any],
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    final: float,
    decay: float | None,
) -> list[Tensor]:
    """Adam with a cosine schedule and a moving average of the weights; the loss of each step."""
    total = len(batches)
    optimizer = torch.optim.Adam(bare.module.parameters(), lr=lr, betas=betas, eps=eps, fused=True)
    schedule = LambdaLR(optimizer, lambda step: final + (1 - final) * (1 + math.cos(math.pi * step / total)) / 2)
    average = AveragedModel(bare.module, multi_avg_fn=get_ema_multi_avg_fn(decay)) if decay else None
    losses = []
    for batch in batches:
        optimizer.zero_grad(set_to_none=True)
        loss = bare.loss(bare, batch)
        loss.backward()
        optimizer.step()
        schedule.step()
        if average is not None:
            average.update_parameters(bare.module)
        losses.append(loss.detach())
    return losses


def without_time(state: tuple[Tensor, ...]) -> Tensor:
    """The largest RMS of the state, its adjoint and the gradients; the first part, of the time, does not count."""
    return max(part.abs().pow(2).mean().sqrt() for part in state[1:])


def make_bare(experiment: Experiment) -> Bare:
    """The model of an experiment, written out, with the same weights."""
    config, spec, device, dtype = experiment.config, experiment.spec, experiment.device, experiment.dtype
    mean, std = spec.mean.to(device, dtype), spec.std.to(device, dtype)
    how: dict[str, Any] = {
        "method": config.solver.name, "rtol": config.tolerance.rtol, "atol": config.tolerance.atol,
    }  # fmt: skip
    solve = odeint
    if config.adjoint.name == "on":
        solve = odeint_adjoint
        how["adjoint_options"] = {"norm": without_time}
    times = torch.tensor([0.0, getattr(config.model, "end_time", 1.0)], device=device, dtype=dtype)

    def trajectory_loss(bare: Bare, batch: Any) -> Tensor:
        ys = solve(bare.field, (batch.ys[0] - mean) / std, batch.ts, **how) * std + mean
        return ((ys[1:] - batch.ys[1:]) / std).pow(2).mean()

    def label_loss(bare: Bare, batch: Any) -> Tensor:
        ys = solve(bare.field, bare.module.encoder((batch.x - mean) / std), times, **how)
        return F.cross_entropy(bare.module.head(ys[-1]), batch.y)

    def flow_loss(bare: Bare, batch: Any) -> Tensor:
        start = torch.cat(((batch.x - mean) / std, batch.x.new_zeros(len(batch.x), 1)), dim=1)
        end = solve(bare.field, start, times, **how)[-1]
        z, gained = end[:, :2], end[:, 2]
        base = -0.5 * (z.pow(2).sum(dim=1) + 2 * math.log(2 * math.pi))
        return -(base + gained - std.log().sum()).mean()

    field: nn.Module
    if spec.view is View.points:
        width = config.field.width or 64  # what the field itself takes for two numbers
        module = field = Flow(width, config.field.depth)
        loss = flow_loss
    else:
        activation = {"silu": nn.SiLU, "tanh": nn.Tanh}[config.field.activation.value]
        labelled = spec.view is View.labelled
        dim = config.model.state if labelled else spec.numel
        module = field = Perceptron(dim, config.field.width, config.field.depth, activation)
        loss = trajectory_loss
        if labelled:
            module = Classifier(spec.numel, config.model.encoder_width, dim, spec.num_classes, field)
            loss = label_loss
    module.to(device, dtype)
    with torch.no_grad():
        for own, other in zip(module.parameters(), experiment.model.parameters(), strict=True):
            assert own.shape == other.shape
            own.copy_(other)
    return Bare(module, field, loss)
