"""Optimisers, all of them torch's."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from node_runner.settings import Count, NonNegative, Positive, Share
from node_runner.training import OPTIMIZERS
from node_runner.training.fused import FusedAdam


@OPTIMIZERS.register("adam")
def adam(
    parameters: Iterable[nn.Parameter],
    /,
    *,
    lr: Positive = 5e-3,
    beta1: Share = 0.9,
    beta2: Share = 0.999,
    eps: Positive = 1e-8,
) -> torch.optim.Optimizer:
    """Adam (Kingma and Ba, 2015).

    Args:
        parameters: to be optimised.
        lr: learning rate, before its schedule.
        beta1, beta2: decay of the means of the gradient, and of its square.
        eps: added to the root of the latter, against division by zero.
    """
    return FusedAdam(list(parameters), lr=lr, betas=(beta1, beta2), eps=eps)


@OPTIMIZERS.register("adamw")
def adamw(
    parameters: Iterable[nn.Parameter],
    /,
    *,
    lr: Positive = 5e-3,
    beta1: Share = 0.9,
    beta2: Share = 0.999,
    eps: Positive = 1e-8,
    weight_decay: NonNegative = 1e-4,
) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019).

    Args:
        parameters: to be optimised.
        lr: learning rate, before its schedule.
        beta1, beta2: decay of the means of the gradient, and of its square.
        eps: added to the root of the latter, against division by zero.
        weight_decay: share of a weight, times the learning rate, that each step takes away.
    """
    return FusedAdam(list(parameters), lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=weight_decay, decoupled=True)


@OPTIMIZERS.register("sgd", "stochastic gradient descent with momentum")
def sgd(
    parameters: Iterable[nn.Parameter],
    /,
    *,
    lr: Positive = 0.1,
    momentum: Share = 0.9,
    nesterov: bool = False,
    weight_decay: NonNegative = 0.0,
) -> torch.optim.Optimizer:
    """Stochastic gradient descent with momentum.

    Args:
        parameters: to be optimised.
        lr: learning rate, before its schedule.
        momentum: share of the last step that is taken again.
        nesterov: take the gradient where the momentum leads (Nesterov, 1983).
        weight_decay: factor on the weights that is added to their gradient.
    """
    return torch.optim.SGD(
        list(parameters), lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay, fused=True
    )


@OPTIMIZERS.register("rmsprop")
def rmsprop(
    parameters: Iterable[nn.Parameter], /, *, lr: Positive = 1e-3, alpha: Share = 0.99, momentum: Share = 0.0
) -> torch.optim.Optimizer:
    """RMSprop (Tieleman and Hinton, 2012), as in torchdiffeq's examples.

    Args:
        parameters: to be optimised.
        lr: learning rate, before its schedule.
        alpha: decay of the mean of the squared gradient.
        momentum: share of the last step that is taken again.
    """
    return torch.optim.RMSprop(list(parameters), lr=lr, alpha=alpha, momentum=momentum)


@OPTIMIZERS.register("lbfgs", "limited-memory BFGS, for full batches: one optimiser step takes several solves")
def lbfgs(
    parameters: Iterable[nn.Parameter],
    /,
    *,
    lr: Positive = 1.0,
    max_iter: Count = 10,
    history: Count = 20,
    line_search: bool = True,
) -> torch.optim.Optimizer:
    """Limited-memory BFGS, for full batches: one optimiser step takes several solves.

    Args:
        parameters: to be optimised.
        lr: factor on the step.
        max_iter: iterations within one optimiser step.
        history: pairs kept of past steps.
        line_search: search along each direction by the strong Wolfe conditions.
    """
    return torch.optim.LBFGS(
        list(parameters),
        lr=lr,
        max_iter=max_iter,
        history_size=history,
        line_search_fn="strong_wolfe" if line_search else None,
    )
